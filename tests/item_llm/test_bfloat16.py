"""Fine-tuning with weights in bfloat16 and float32 copies of what is trained, over gloo."""

import shutil

import numpy as np
import pytest
import torch
import zero_worker
from safetensors.torch import load_file
from zero_launch import losses, rms_ratio, torchrun

from item_llm import ItemLLMConfig
from item_llm.memory import finetuning_memory

STAGES = (1, 3)


def job(folder, stage, name, dtype="bfloat16", **fields):
    return {
        "name": name,
        "encoder": {"dtype": dtype},
        "finetuning": {"zero_stage": stage, "checkpoint_every": 10},
        "checkpoints": str(folder / f"checkpoints-{name}"),
        **fields,
    }


@pytest.fixture(scope="module")
def trainings(tiny_llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("bfloat16")
    jobs = [job(out, 2, "float32", dtype="float32")]
    for stage in STAGES:
        jobs += [job(out, stage, f"{stage}-whole"), job(out, stage, f"{stage}", stop=11)]
    before = torchrun(2, tiny_llama, out, jobs)
    for stage in STAGES:
        shutil.copytree(out / f"checkpoints-{stage}", out / f"checkpoints-{stage}-after")
    after = torchrun(2, tiny_llama, out, [job(out, stage, f"{stage}-after") for stage in STAGES])
    return out, before | after


@pytest.mark.parametrize("stage", STAGES)
def test_it_learns_as_float32_does(trainings, stage):
    _, reports = trainings
    half, full = reports[f"{stage}-whole"], reports["float32"]
    assert losses(half)[0] == pytest.approx(losses(full)[0], rel=0.02)
    assert np.mean(losses(half)[-5:]) == pytest.approx(np.mean(losses(full)[-5:]), rel=0.05)
    ranks = [found[0]["result"]["after"]["mrr"] for found in (half, full)]
    assert ranks[0] == pytest.approx(ranks[1], rel=0.15)
    assert ranks[0] > 1.1 * half[0]["result"]["before"]["mrr"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_training_is_bit_identical(trainings, stage):
    out, reports = trainings
    assert losses(reports[f"{stage}-after"]) == losses(reports[f"{stage}-whole"])[10:]
    assert rms_ratio(out / f"adapter-{stage}-after", out / f"adapter-{stage}-whole") == 0


@pytest.mark.parametrize("stage", STAGES)
def test_the_adapter_has_the_bits_that_bfloat16_has_not(trainings, stage):
    out, _ = trainings
    for name, weight in load_file(out / f"adapter-{stage}-whole/adapter_model.safetensors").items():
        assert weight.dtype == torch.float32
        rounded = (weight == weight.bfloat16().float()).float().mean()
        assert rounded < 0.1, name


def test_what_a_worker_will_hold_is_told_by_the_width_of_its_weights(tiny_llama):
    def told(dtype):
        config = {
            "encoder": {"base": str(tiny_llama), "dtype": dtype},
            "lora": {"r": 4, "alpha": 8},
            "finetuning": zero_worker.FINETUNING | {"zero_stage": 3},
        }
        settings = ItemLLMConfig.model_validate(config)
        kept = []

        def count(compute, held):
            kept.extend(tensor.dtype for tensor in held if tensor.is_floating_point())
            return 0

        return finetuning_memory(settings, 2, count), set(kept)

    half, dtypes = told("bfloat16")
    full, _ = told("float32")
    assert torch.bfloat16 in dtypes
    assert (2 * half.weights, 2 * half.gathered) == (full.weights, full.gathered)
    assert half.optimizer == full.optimizer
