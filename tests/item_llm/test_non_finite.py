"""Numbers that are none in a fine-tuning, from real causes, under real DeepSpeed."""

import logging
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import item_pairs
from transformers import AutoTokenizer
from zero_launch import torchrun

from item_llm import ItemLLMConfig, ItemPairs, finetune

pytestmark = pytest.mark.faults
RARE = 5  # the place of a text with a word that no other has
STEPS = 6


def harmed(base, folder, harm):
    """A copy of the base model with other weights."""
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    harm(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def poison(tiny_bert, tmp_path, item_texts):
    """A base model whose vector of one word is no number, and texts of which one has the word."""
    token = AutoTokenizer.from_pretrained(tiny_bert).convert_tokens_to_ids("drum")

    def harm(weights):
        weights["embeddings.word_embeddings.weight"][token] = float("nan")

    texts = [text.replace("drum", "doll") for text in item_texts]
    texts[RARE] = "silver wooden drum"
    return harmed(tiny_bert, tmp_path / "poison", harm), texts


def fit(base, texts, folder, *, encoder=None, lora=None, held_out=0, **finetuning):
    config = {
        "encoder": {"base": str(base), **(encoder or {})},
        "lora": {"dropout": 0.0, **(lora or {})},
        "finetuning": {"pairs_per_step": 8, "max_steps": STEPS, "zero_stage": 2, **finetuning},
    }
    pairs = ItemPairs(*item_pairs(100, seed=0))
    held_out_pairs = pairs[np.arange(held_out)]
    seen = []
    result = finetune(
        ItemLLMConfig.model_validate(config), pairs, held_out_pairs, texts, folder,
        on_step=lambda *told: seen.append(told), domain_names=["wood", "tin"],
    )  # fmt: skip
    assert result.skipped_steps + len(seen) == STEPS
    return seen, load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_text_whose_vector_is_no_number_is_named_with_step_and_domain(stage, poison, tmp_path):
    told = r"loss is nan .* at step \d, with pairs of wood; 1 of its \d+ texts .*: 'silver wooden d"
    with pytest.raises(ValueError, match=told):
        fit(*poison, tmp_path / "adapter", zero_stage=stage)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_steps_that_are_allowed_are_left_out_told_and_the_adapter_is_sound(
    stage, poison, tmp_path, caplog
):
    with caplog.at_level(logging.WARNING, logger="item_llm.training"):
        seen, adapter = fit(*poison, tmp_path / "a", zero_stage=stage, max_skipped_steps=STEPS)
    left_out = [r.message for r in caplog.records if "left out" in r.message]
    assert 0 < len(left_out) < STEPS
    assert len(seen) + len(left_out) == STEPS
    assert all("'silver wooden drum'" in sentence for sentence in left_out)
    assert all(torch.isfinite(weight).all() for weight in adapter.values())
    assert any(weight.any() for name, weight in adapter.items() if "lora_B" in name)
    assert all(np.isfinite(loss) for _, loss, _ in seen)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_gradient_that_overflows_beside_a_finite_loss_is_no_silent_step(
    stage, tiny_llama, tmp_path, item_texts
):
    """LoRA's B is 0 at first, so a scale of 1e36 does nothing forward and overflows backward."""
    told = r"loss is \d+\.\d+ and its gradient not finite at step [12], .*none of its \d+ texts"
    with pytest.raises(ValueError, match=told):
        fit(tiny_llama, item_texts, tmp_path / "a", lora={"alpha": 1e37}, zero_stage=stage)


def test_a_held_out_text_whose_vector_is_no_number_stops_before_any_step(poison, tmp_path):
    with pytest.raises(
        ValueError, match=r"1 of \d+ held-out texts .*the first 'silver wooden drum'"
    ):
        fit(*poison, tmp_path / "a", held_out=100, max_skipped_steps=STEPS)


def test_an_adapter_of_no_numbers_is_not_saved(tiny_llama, tmp_path, item_texts):
    """One step of such a rate and decay: its own loss and gradient were numbers still."""
    with pytest.raises(ValueError, match=r"no numbers? after the last step; lower"):
        fit(
            tiny_llama, item_texts, tmp_path / "a", learning_rate=1e30, warmup_fraction=0,
            max_steps=1, weight_decay=3.3e8,
        )  # fmt: skip
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_two_workers_leave_out_the_same_steps(tiny_bert, tmp_path):
    def harm(weights):
        token = AutoTokenizer.from_pretrained(tiny_bert).convert_tokens_to_ids("drum")
        weights["embeddings.word_embeddings.weight"][token] = float("nan")

    base = harmed(tiny_bert, tmp_path / "poison", harm)
    settings = {"max_steps": 10, "max_skipped_steps": 10}
    jobs = [
        {"name": f"{stage}", "finetuning": settings | {"zero_stage": stage}, "held_out": 0}
        for stage in (0, 2, 3)
    ]
    for reports in torchrun(2, base, tmp_path, jobs).values():
        first, second = (report["losses"] for report in reports)
        assert first == second
        assert 0 < len(first) < 10
        assert reports[0]["result"]["skipped_steps"] == 10 - len(first)


def test_a_rate_that_explodes_is_told_with_its_step(tiny_llama, tmp_path, item_texts):
    told = r"at step [2-4], with pairs of \w+; .*lower finetuning.learning_rate"
    with pytest.raises(ValueError, match=told):
        fit(tiny_llama, item_texts, tmp_path / "a", learning_rate=1e30, warmup_fraction=0)


def test_bfloat16_that_overflows_in_the_base_model_is_told(tiny_llama, tmp_path, item_texts):
    """Weights of 1e25 are numbers in bfloat16; the product of two layers of them is none."""

    def harm(weights):
        for layer in ("up", "gate", "down"):
            weights[f"model.layers.0.mlp.{layer}_proj.weight"] *= 1e25

    base = harmed(tiny_llama, tmp_path / "large", harm)
    with pytest.raises(ValueError, match=r"loss is nan .* at step 1, .*; all of its \d+ texts"):
        fit(base, item_texts, tmp_path / "a", encoder={"dtype": "bfloat16"})


def test_the_same_training_twice_gives_the_same_bits(tiny_llama, tmp_path, item_texts):
    first, second = (fit(tiny_llama, item_texts, tmp_path / name) for name in "ab")
    assert first[0] == second[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])
