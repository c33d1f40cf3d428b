"""Real DeepSpeed ZeRO over gloo with two processes, on a tiny Llama."""

import shutil

import numpy as np
import pytest
import torch
import zero_worker
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel
from zero_launch import assert_same_losses, losses, rms_ratio, torchrun

from item_llm import (
    EncoderConfig,
    FinetuningConfig,
    ItemEncoder,
    ItemLLMConfig,
    ItemPairs,
    finetune,
)
from item_llm.finetuning_config import learning_rate, total_steps
from item_llm.memory import finetuning_memory

TRAINABLE = 2 * (2 * 4 * 32 + 4 * 32 + 4 * 16) + 32 + 1  # LoRA on q and v, [ITEM], temperature


def stage_jobs(stages):
    return [{"name": str(stage), "finetuning": {"zero_stage": stage}} for stage in stages]


@pytest.fixture(scope="module")
def two_workers(tiny_llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("zero")
    reports = torchrun(2, tiny_llama, out, stage_jobs([1, 2, 3]))
    return out, {int(name): report for name, report in reports.items()}


SAVING = {
    "1-parts": {"gradient_accumulation": 2},
    "2-both": {"gradient_accumulation": 4, "gradient_checkpointing": True},
    "3-recomputed": {"gradient_checkpointing": True},
    "3-parts": {"gradient_accumulation": 2},
}


@pytest.fixture(scope="module")
def saving(two_workers, tiny_llama):
    jobs = [
        {"name": name, "finetuning": {"zero_stage": int(name[0]), **fields}, "stop": 13}
        for name, fields in SAVING.items()
    ]
    return torchrun(2, tiny_llama, two_workers[0], jobs)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_loss_falls_and_held_out_ranks_rise(two_workers, stage):
    report = two_workers[1][stage][0]
    curve, result = losses([report]), report["result"]
    assert len(curve) == 30 == result["steps"]
    assert np.mean(curve[-5:]) < np.mean(curve[:5]) - 0.5
    assert result["after"]["loss"] < result["before"]["loss"]
    assert result["after"]["mrr"] > result["before"]["mrr"] + 0.03
    assert -1 <= result["mean_cosine"] < 0.999


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_optimizer_state_is_really_sharded(two_workers, stage):
    result = two_workers[1][stage][0]["result"]
    assert result["optimizer_elements_unsharded"] == 2 * TRAINABLE
    halves = result["optimizer_elements"]
    assert len(halves) == 2
    assert max(halves) < 1.05 * TRAINABLE, "a worker holds more than its half"
    assert sum(halves) >= 2 * TRAINABLE


def test_stage_3_shards_the_weights_too(two_workers):
    whole = two_workers[1][2][0]["result"]["weight_elements"]
    shards = two_workers[1][3][0]["result"]["weight_elements"]
    assert whole[0] == whole[1] > 20_000
    assert max(shards) < 0.51 * whole[0]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_a_worker_holds_is_what_was_told_of_it(two_workers, tiny_llama, stage):
    result = two_workers[1][stage][0]["result"]
    settings = zero_worker.FINETUNING | {"zero_stage": stage}
    config = ItemLLMConfig.model_validate(
        {
            "encoder": {"base": str(tiny_llama)},
            "lora": {"r": 4, "alpha": 8},
            "finetuning": settings,
        }
    )
    told = finetuning_memory(config, 2, lambda compute, held: 0)
    assert told.weights == pytest.approx(4 * max(result["weight_elements"]), rel=0.01)
    moments = 4 * max(result["optimizer_elements"])
    assert told.optimizer == pytest.approx(1.5 * moments, rel=0.05)  # and what they are for
    assert (told.gathered > 0) == (stage == 3)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_adapter_loads_in_plain_peft(two_workers, tiny_llama, stage):
    folder = two_workers[0] / f"adapter-{stage}"
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_llama), folder)
    weights = load_file(folder / "adapter_model.safetensors")
    updates = [w for name, w in weights.items() if "lora_B" in name]
    assert len(updates) == 4
    assert all(w.abs().max() > 1e-3 for w in updates), "an update stayed at zero"
    loaded = dict(model.named_parameters())
    for name, weight in weights.items():
        inside = loaded[name.replace(".weight", ".default.weight")]
        torch.testing.assert_close(inside.data, weight, rtol=0, atol=0)


def test_workers_agree_on_the_result(two_workers):
    for reports in two_workers[1].values():
        first, second = ({**r["result"], "seconds": 0} for r in reports)
        assert first == second
        assert reports[0]["losses"] == reports[1]["losses"]


@pytest.mark.parametrize("stage", [2, 3])
def test_stages_learn_the_same(two_workers, stage):
    out, reports = two_workers
    assert_same_losses(losses(reports[1]), losses(reports[stage]))
    assert rms_ratio(out / "adapter-1", out / f"adapter-{stage}") < 1e-2


def test_the_number_of_workers_does_not_change_what_is_learned(two_workers, tiny_llama, tmp_path):
    out, reports = two_workers
    alone = torchrun(1, tiny_llama, tmp_path, stage_jobs([2]))["2"]
    assert_same_losses(losses(alone), losses(reports[2]))
    assert rms_ratio(out / "adapter-2", tmp_path / "adapter-2") < 1e-2


@pytest.mark.slow
def test_stage_0_keeps_the_whole_optimizer_state_everywhere(tiny_llama, tmp_path):
    result = torchrun(2, tiny_llama, tmp_path, stage_jobs([0]))["0"][0]["result"]
    assert result["optimizer_elements"] == [2 * TRAINABLE] * 2
    assert result["after"]["mrr"] > result["before"]["mrr"] + 0.03


def test_the_tuned_encoder_gives_the_vectors_that_were_measured(two_workers, tiny_llama):
    from tiny_models import item_pairs, item_texts

    from item_llm.held_out import held_out_metrics

    out, reports = two_workers
    encoder = ItemEncoder.load(EncoderConfig(base=str(tiny_llama)), out / "adapter-2")
    held_out = ItemPairs(*item_pairs(200, seed=1))
    metrics = held_out_metrics(encoder.encode(item_texts()), held_out, 0.05)
    measured = reports[2][0]["result"]["after"]
    assert metrics.mrr == pytest.approx(measured["mrr"], rel=1e-3)
    assert metrics.loss == pytest.approx(measured["loss"], rel=1e-3)


def tiny_config(base, **finetuning):
    return ItemLLMConfig.model_validate(
        {
            "encoder": {"base": str(base)},
            "lora": {"dropout": 0.1},
            "finetuning": {"pairs_per_step": 8, "max_steps": 6, "zero_stage": 2, **finetuning},
        }
    )


def run(config, texts, folder, **options):
    from tiny_models import item_pairs

    pairs = ItemPairs(*item_pairs(100, seed=0))
    none = pairs[np.array([], dtype=np.int64)]
    return finetune(config, pairs, none, texts, folder, **options)


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("name", SAVING)
def test_memory_is_saved_without_changing_what_is_learned(two_workers, saving, name):
    """Parts of the pairs are one large batch; activations computed again are the same."""
    curve = losses(saving[name])
    assert len(curve) == 12
    np.testing.assert_allclose(curve, losses(two_workers[1][int(name[0])])[:12], rtol=1e-4)


@pytest.mark.faults
def test_a_resumed_training_is_bit_identical(tiny_llama, tmp_path, item_texts):
    config = tiny_config(
        tiny_llama, checkpoint_every=2, gradient_accumulation=2, cached_negatives=8
    )
    whole = run(config, item_texts, tmp_path / "whole")

    def interrupt(step, loss, rate):
        if step == 5:
            raise PowerCutError

    checkpoints = tmp_path / "checkpoints"
    with pytest.raises(PowerCutError):
        run(config, item_texts, tmp_path / "a", on_step=interrupt, checkpoint_dir=checkpoints)
    assert sorted(p.name for p in checkpoints.iterdir()) == ["step-2", "step-4"]
    steps = []
    resumed = run(
        config,
        item_texts,
        tmp_path / "resumed",
        on_step=lambda step, loss, rate: steps.append(step),
        checkpoint_dir=checkpoints,
    )
    assert steps == [5, 6]
    assert resumed.adapter_sha256 == whole.adapter_sha256
    assert resumed.held_out_pairs == 0
    assert resumed.before is None
    other = config.model_copy(update={"lora": config.lora.model_copy(update={"r": 4})})
    with pytest.raises(ValueError, match=r"step-6: settings is .* delete"):
        run(other, item_texts, tmp_path / "b", checkpoint_dir=checkpoints)


def test_a_loss_that_is_not_finite_raises(tiny_llama, tmp_path, item_texts):
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_llama, damaged)
    weights = load_file(damaged / "model.safetensors")
    weights["model.embed_tokens.weight"].fill_(float("nan"))
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"loss is nan .* at step 1, .* lower finetuning.learn"):
        run(tiny_config(damaged), item_texts, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_the_wrong_number_of_workers_raises(tiny_llama, tmp_path, item_texts):
    with pytest.raises(ValueError, match="asked for 2 workers, but the process group has 1"):
        run(tiny_config(tiny_llama), item_texts, tmp_path / "adapter", workers=2)
    with pytest.raises(ValueError, match=r"pairs_per_step is 8, which 3 workers .* in 1 parts"):
        run(tiny_config(tiny_llama), item_texts, tmp_path / "adapter", workers=3)


def test_a_frozen_encoder_is_not_fine_tuned(tiny_llama, tmp_path, item_texts):
    with pytest.raises(ValueError, match="needs `lora` and no `adapter`"):
        run(ItemLLMConfig(lora=None), item_texts, tmp_path / "adapter")


def test_bfloat16_without_a_float32_copy_is_refused(tiny_llama, tmp_path, item_texts):
    config = tiny_config(tiny_llama)
    half = config.encoder.model_copy(update={"dtype": "bfloat16"})
    whole = config.finetuning.model_copy(update={"zero_stage": 0})
    config = config.model_copy(update={"encoder": half, "finetuning": whole})
    with pytest.raises(ValueError, match=r"dtype is bfloat16.* set zero_stage to 1, 2 or 3"):
        run(config, item_texts, tmp_path / "adapter")


def test_mixed_trains_the_adapter_of_float32_and_encodes_with_it(tiny_llama, tmp_path, item_texts):
    config = tiny_config(tiny_llama)
    mixed = config.encoder.model_copy(update={"dtype": "mixed"})
    exact = run(config, item_texts, tmp_path / "exact")
    same = run(config.model_copy(update={"encoder": mixed}), item_texts, tmp_path / "mixed")
    assert same.adapter_sha256 == exact.adapter_sha256
    vectors = ItemEncoder.load(mixed, tmp_path / "mixed").encode(item_texts)
    expected = ItemEncoder.load(config.encoder, tmp_path / "exact").encode(item_texts)
    assert 0.999 < (vectors * expected).sum(1).min() < 1 - 1e-7


def test_schedule_warms_up_and_falls_to_zero():
    config = FinetuningConfig(learning_rate=1.0, warmup_fraction=0.2)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[-1] < 0.05


@pytest.mark.parametrize(
    ("fields", "steps"),
    [({"epochs": 2, "max_steps": None}, 20), ({"max_steps": 7}, 7), ({"epochs": 0.001}, 1)],
)
def test_steps_follow_from_epochs_and_their_limit(fields, steps):
    config = FinetuningConfig(**{"pairs_per_step": 10, **fields})
    assert total_steps(config, 100) == steps
