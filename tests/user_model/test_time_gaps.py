"""The time channel: which gaps are taken, that it begins as nothing, and that it can be learned."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from user_model import Hydra, HydraConfig, ItemTable, Recommender, TrainingConfig, train
from user_model.time_gaps import (
    GAP_BUCKETS,
    NO_EVENT,
    gap_buckets,
    last_times,
    log_gaps,
    packed_gaps,
)

HEADS = pytest.mark.parametrize("head", ["full", "lean"])


def logs(*seconds):
    return [math.log(1 + s) for s in seconds]


def test_a_gap_is_to_the_event_before_in_the_same_history():
    times = torch.tensor([100, 110, 110, 7, 500, 86900])
    seams = torch.tensor([0, 3, 4, 4, 6])
    assert packed_gaps(times, seams).tolist() == pytest.approx(logs(0, 10, 0, 0, 0, 86400))
    assert last_times(times, seams).tolist() == [110, 7, NO_EVENT, 86900]
    before = torch.tensor([90, NO_EVENT, 3, 499])
    assert packed_gaps(times, seams, before).tolist() == pytest.approx(logs(10, 10, 0, 0, 1, 86400))
    assert last_times(times, seams, before).tolist() == [110, 7, 3, 86900]


def test_without_events_there_are_no_gaps():
    nothing, seams = torch.zeros(0, dtype=torch.int64), torch.tensor([0, 0, 0])
    assert packed_gaps(nothing, seams).tolist() == []
    assert last_times(nothing, seams).tolist() == [NO_EVENT] * 2


def hydras(head):
    """One model with the channel and one without, of equal weights otherwise."""
    made = [
        Hydra(HydraConfig(dim=16, layers=2, head=head, dropout=0.0, time_gaps=timed))
        for timed in (True, False)
    ]
    weights = made[0].state_dict()
    made[1].load_state_dict({k: v for k, v in weights.items() if "gap_" not in k})
    return made


@HEADS
def test_before_training_it_changes_nothing_but_can_learn(head):
    timed, plain = hydras(head)
    vectors, seams = torch.randn(11, 16), torch.tensor([0, 4, 11])
    times = torch.arange(11) * 5000
    expected = plain(vectors, seams)
    got = timed(vectors, seams, times)
    assert torch.equal(got, expected)
    got.square().sum().backward()
    for block in timed.blocks:
        assert block.interaction.gap_weight.grad.all()
    used = timed.gap_vectors.grad.any(1).nonzero().flatten()
    assert used.tolist() == [0, 12]  # no gap, and 5,000 seconds


def test_a_bucket_is_a_power_of_two():
    seconds = torch.tensor([0, 1, 2, 3, 6, 7, 2**20 - 1, 2**20, 2**40])
    buckets = gap_buckets(log_gaps(seconds))
    assert buckets.tolist() == [0, 1, 1, 2, 2, 3, 20, 20, GAP_BUCKETS - 1]


@HEADS
def test_later_times_and_those_of_others_are_not_seen(head):
    timed = hydras(head)[0].double()
    for parameter in timed.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    vectors, seams = torch.randn(12, 16, dtype=torch.float64), torch.tensor([0, 4, 12])
    times = torch.arange(12) * 5000
    before = timed(vectors, seams, times)
    moved = times.clone()
    moved[7:] += 86400  # the gap before event 7 alone is another
    changed = (timed(vectors, seams, moved) - before).abs().amax(1) > 1e-10
    assert changed.tolist() == [False] * 7 + [True] * 5
    # Histories are moved as a whole: only differences count.
    assert torch.equal(timed(vectors, seams, times + 10**6), before)


def by_time(rng, rows=400):
    """Histories (first, second) whose next item is 2 after a second, and 3 after a year."""
    late = rng.integers(2, size=rows)
    items = np.stack([rng.integers(2, size=rows), rng.integers(2, size=rows), 2 + late], 1)
    gaps = np.stack([np.zeros_like(late), np.where(late, 31_536_000, 1), np.ones_like(late)], 1)
    return items, 1_600_000_000 + gaps.cumsum(1), late


@HEADS
@pytest.mark.parametrize("timed", [False, True])
def test_only_with_times_it_learns_what_gaps_tell(head, timed):
    items, times, late = by_time(np.random.default_rng(0))
    rows = SimpleNamespace(offsets=np.arange(0, items.size + 1, 3), items=items.ravel())
    made = Hydra(HydraConfig(dim=16, layers=1, head=head, dropout=0.0, time_gaps=timed))
    model = Recommender(ItemTable(4, 16), made)
    config = TrainingConfig(
        epochs=25, batch_tokens=128, negatives=16, negatives_tile=32, lr=0.01, warmup_steps=5
    )
    given = times.ravel() if timed else None
    train(model, rows, np.array([0, 4]), config, seed=0, times=given)
    users = model.encode_histories(
        np.arange(0, 2 * len(items) + 1, 2), items[:, :2].ravel(), block_tokens=100,
        times=times[:, :2].ravel() if timed else None,
    )  # fmt: skip
    with torch.no_grad():
        scores = users @ model.item_vectors(torch.tensor([2, 3])).T
    right = float((scores.argmax(1).numpy() == late).mean())
    assert right == 1.0 if timed else right < 0.7


def test_absent_or_odd_times_are_named():
    timed, _ = hydras("lean")
    vectors, seams = torch.zeros(4, 16), torch.tensor([0, 4])
    with pytest.raises(ValueError, match=r"times: got none, expected int64 \[4\]"):
        timed(vectors, seams)
    with pytest.raises(ValueError, match=r"times: got torch.int64 \[3\], expected int64 \[4\]"):
        timed(vectors, seams, torch.arange(3))
