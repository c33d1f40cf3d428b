"""Numbers that are none, from real causes: the step, the domain and the item are named."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from user_model import Hydra, HydraConfig, ItemTable, Recommender, TrainingConfig, train
from user_model.non_finite import NonFiniteLossError

pytestmark = pytest.mark.faults
BOOKS, TOYS = 30, 20
STARTS = np.array([0, BOOKS, BOOKS + TOYS])
EPOCHS = 3
NAMES = {"domain_names": ["books", "toys"], "name_item": lambda item: f"item-{item}"}


def recommender(text=None):
    torch.manual_seed(0)
    table = ItemTable(BOOKS + TOYS, 16, text)
    return Recommender(table, Hydra(HydraConfig(dim=16, layers=1)))


def histories():
    """Many readers of books, and one who plays."""
    rows = [[(start + step) % BOOKS for step in range(5)] for start in range(BOOKS)]
    rows.append([BOOKS + step for step in range(5)])
    return SimpleNamespace(
        offsets=np.arange(0, 5 * len(rows) + 1, 5), items=np.concatenate(rows).astype(np.int64)
    )


def settings(**fields):
    small = {"epochs": EPOCHS, "batch_tokens": 8, "negatives": 64, "negatives_tile": 32}
    return TrainingConfig(**small | fields)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def fit(model, **fields):
    options = {name: fields.pop(name) for name in ("validate", "checkpoint_dir") if name in fields}
    return train(model, histories(), STARTS, settings(**fields), seed=0, **NAMES, **options)


def test_an_id_vector_that_is_no_number_is_named_and_nothing_is_learned_from_it():
    model = recommender()
    model.items.ids.data[BOOKS + 3, 5] = float("nan")
    with pytest.raises(NonFiniteLossError) as raised:
        fit(model)
    sentence = str(raised.value)
    assert "targets of toys" in sentence or "targets of books, toys" in sentence
    assert "not finite: the vectors of item-33 (of 50);" in sentence
    others = torch.arange(BOOKS + TOYS) != BOOKS + 3
    assert all(torch.isfinite(t).all() for n, t in weights(model).items() if n != "items.ids")
    assert torch.isfinite(model.items.ids[others]).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_a_text_vector_that_went_bad_after_it_was_checked_is_named(value):
    """3e38 is a number, but its projection is none."""
    model = recommender(torch.randn(BOOKS + TOYS, 8))
    model.items.text_vectors[7, :] = value
    model.items.text_projection.weight.data.fill_(10.0)
    with pytest.raises(NonFiniteLossError, match=r"targets of books.*the vectors of item-7 \(of"):
        fit(model)


def test_text_vectors_that_left_the_range_of_float16_are_refused_at_once():
    with pytest.raises(ValueError, match="text_vectors: got values that are not finite"):
        recommender((torch.full((BOOKS + TOYS, 8), 70_000.0)).half().float())


def test_a_rate_that_explodes_is_told_with_its_step():
    model = recommender()
    with pytest.raises(NonFiniteLossError, match=r"at step \d, epoch 1.*lower lr"):
        fit(model, lr=1e30, warmup_steps=0)


def test_weights_that_went_bad_are_not_blamed_on_items():
    model = recommender()
    model.sequence_model.norm.weight.data[0] = float("inf")
    with pytest.raises(NonFiniteLossError, match=r"step 1, epoch 1.*not finite: every history"):
        fit(model)


def poisoned():
    model = recommender()
    model.items.ids.data[BOOKS + 3, 5] = float("nan")
    return model


def test_steps_that_are_allowed_are_left_out_told_and_the_rest_is_learned(caplog):
    sound, model = recommender(), poisoned()
    with caplog.at_level(logging.WARNING):
        result = fit(model, max_skipped_steps=EPOCHS)
    assert result.skipped_steps == EPOCHS  # the one who plays stands in one batch of each epoch
    assert fit(sound).skipped_steps == 0
    assert sum("left out" in record.message for record in caplog.records) == EPOCHS
    assert "item-33" in caplog.text
    assert result.history[-1].loss < result.history[0].loss
    learned = weights(model)
    assert all(torch.isfinite(t).all() for n, t in learned.items() if n != "items.ids")
    assert torch.isfinite(learned["items.ids"][:BOOKS]).all()
    with pytest.raises(NonFiniteLossError, match="epoch 3"):
        fit(poisoned(), max_skipped_steps=EPOCHS - 1)


def test_what_was_left_out_counts_on_after_a_resume(tmp_path):
    model = poisoned()
    train(
        model, histories(), STARTS, settings(max_skipped_steps=2), seed=0, until_epoch=2,
        checkpoint_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(NonFiniteLossError, match="epoch 3"):
        fit(model, max_skipped_steps=2, checkpoint_dir=tmp_path)


def test_an_epoch_of_which_nothing_was_learned_is_no_epoch():
    model = recommender()
    model.sequence_model.norm.weight.data[0] = float("nan")
    with pytest.raises(NonFiniteLossError, match="no step of epoch 1 had a finite one"):
        fit(model, max_skipped_steps=1000)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_that_is_no_number_is_never_the_best(value):
    with pytest.raises(NonFiniteLossError, match=rf"validation: got {value} after epoch 1"):
        fit(recommender(), validate=lambda _: value)
