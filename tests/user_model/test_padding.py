"""The share of padding in what a model computes, and that training tells it."""

import math

import pytest
import torch
from torch import nn

from user_model import (
    Hydra,
    HydraConfig,
    ItemTable,
    Recommender,
    SASRec,
    SASRecConfig,
    TrainingConfig,
    train,
)
from user_model.batching import Batches
from user_model.ops import BackendUnavailableError, plan
from user_model.padding import padding_share
from user_model.progress import EpochRecord, Progress

SEAMS = torch.tensor([0, 40, 41, 41, 71])


def hydra(backend="auto"):
    return Hydra(HydraConfig(dim=16, layers=1, dropout=0.0, backend=backend))


@pytest.mark.parametrize("backend", ["auto", "cpu", "reference"])
def test_a_scan_that_walks_over_tokens_has_none(backend):
    assert padding_share(hydra(backend), SEAMS) == 0.0


def test_a_scan_in_chunks_fills_up_the_last_of_each_sequence():
    chunk = plan(SEAMS).chunk
    slots = chunk * sum(math.ceil(length / chunk) for length in (40, 1, 30))
    assert slots > 71
    assert padding_share(hydra("torch"), SEAMS) == pytest.approx(1 - 71 / slots)


def test_triton_fills_up_the_last_tile_of_each_work_item():
    assert padding_share(hydra("triton"), SEAMS) == plan(SEAMS).padding_share("triton")
    assert 0 < padding_share(hydra("triton"), SEAMS) < 1


def test_attention_fills_up_rows_to_the_longest_of_their_group():
    """Lengths of 33 to 50 are one group: 40 and 35 tokens stand in two rows of 40."""
    model = SASRec(SASRecConfig(dim=16, layers=1))
    assert padding_share(model, torch.tensor([0, 40, 75])) == pytest.approx(1 - 75 / 80)
    assert padding_share(model, torch.tensor([0, 40, 80])) == 0.0
    assert padding_share(model, torch.tensor([0])) == 0.0


def test_what_does_not_tell_is_none():
    assert padding_share(nn.Linear(2, 2), SEAMS) is None
    assert padding_share(hydra("mamba_ssm"), SEAMS) is None


def test_an_unknown_backend_raises():
    with pytest.raises(ValueError, match="hydra_scan: got backend 'abacus'"):
        padding_share(hydra("abacus"), SEAMS)
    with pytest.raises(BackendUnavailableError, match="'cpu' got tensors on meta"):
        padding_share(hydra("cpu").to("meta"), SEAMS)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_training_tells_it_of_the_first_batch_of_each_epoch(backend, circles, domain_starts):
    config = TrainingConfig(epochs=2, batch_tokens=128, negatives=16, negatives_tile=32)
    model, told = Recommender(ItemTable(50, 16, None), hydra(backend)), []
    train(model, circles, domain_starts, config, seed=3, on_epoch=told.append)
    batches = Batches(
        circles, domain_starts, batch_tokens=128, max_history=config.max_history, seed=3,
        min_epoch_steps=config.min_epoch_steps,
    )  # fmt: skip
    firsts = [torch.from_numpy(batches.epoch(number)[0].cu_seqlens) for number in range(2)]
    expected = [plan(first).padding_share("torch") for first in firsts]
    assert [r.padding_share for r in told] == ([0.0, 0.0] if backend == "auto" else expected)
    assert expected[0] != expected[1] != 0.0


def test_it_survives_a_checkpoint_and_older_ones_are_read():
    progress = Progress(tokens=10, loss_sum=5.0, seconds=2.0, cpu_seconds=1.5, step=3)
    record, _ = progress.close_epoch(0.5, 0.01, 0.125)
    assert record == EpochRecord(1, 3, 0.5, 0.5, 2.0, 0.01, 5.0, 0.125, 1.5)
    fields = progress.to_json()
    assert Progress.from_json(fields).history == [record]
    del fields["history"][0]["padding_share"], fields["history"][0]["cpu_seconds"]
    older = Progress.from_json(fields).history[0]
    assert (older.padding_share, older.cpu_seconds) == (None, None)
