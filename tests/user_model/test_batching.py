from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from user_model.batching import Batches, Windows
from user_model.ops import plan


def rows_of(*rows):
    from types import SimpleNamespace

    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    items = np.concatenate([np.asarray(r, dtype=np.int64) for r in rows])
    return SimpleNamespace(offsets=offsets, items=items)


def batches(rows, starts, **kwargs):
    settings = {"batch_tokens": 64, "max_history": None, "seed": 0} | kwargs
    return Batches(rows, np.asarray(starts), **settings)


def test_windows_are_laid_from_the_end_and_share_one_event():
    # 8 events have 7 targets: windows of 3, 3 and, first in time, 1.
    windows = Windows.cut(np.array([0, 8]), 3)
    assert sorted(zip(windows.starts.tolist(), windows.lengths.tolist(), strict=True)) == [
        (0, 1),
        (1, 3),
        (4, 3),
    ]


def test_a_row_of_one_event_or_none_has_no_window():
    windows = Windows.cut(np.array([0, 1, 1, 3]), 50)
    assert windows.starts.tolist() == [1]
    assert windows.lengths.tolist() == [1]


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=8), st.one_of(st.none(), st.integers(1, 9))
)
def test_each_target_is_in_exactly_one_window(lengths, max_history):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    windows = Windows.cut(offsets, max_history)
    targets = [
        s + k + 1 for s, n in zip(windows.starts, windows.lengths, strict=True) for k in range(n)
    ]
    expected = [e for a, b in pairwise(offsets) for e in range(a + 1, b)]
    assert sorted(targets) == expected
    assert max_history is None or windows.lengths.max(initial=0) <= max_history


def test_pack_gives_inputs_targets_domains_and_seams():
    packer = batches(rows_of([0, 1, 7], [8, 9]), [0, 5, 10])
    batch = packer.pack(np.array([1, 0]))
    assert batch.items.tolist() == [8, 0, 1]
    assert batch.targets.tolist() == [9, 1, 7]
    assert batch.domains.tolist() == [1, 0, 1]
    assert batch.cu_seqlens.tolist() == [0, 1, 3]


def test_an_epoch_holds_every_target_once_and_another_epoch_in_another_order(
    circles, domain_starts
):
    packer = batches(circles, domain_starts)
    epochs = [packer.epoch(e) for e in range(2)]
    flat = [np.concatenate([epoch[i].targets for i in range(len(epoch))]) for epoch in epochs]
    everything = packer.pack(np.arange(len(packer.windows.lengths))).targets
    for targets in flat:
        assert sorted(targets) == sorted(everything)
    assert not np.array_equal(flat[0], flat[1])
    again = packer.epoch(1)
    assert all(np.array_equal(again[i].items, epochs[1][i].items) for i in range(len(again)))


def test_batches_are_nearly_of_the_size_asked_for(circles, domain_starts):
    epoch = batches(circles, domain_starts, batch_tokens=64).epoch(0)
    sizes = [epoch[i].n_tokens for i in range(len(epoch))]
    assert len(sizes) > 5
    assert max(sizes) - min(sizes) < 32
    assert abs(np.mean(sizes) - 64) < 8


@given(
    st.lists(st.integers(2, 12), min_size=1, max_size=30), st.integers(1, 40), st.integers(1, 200)
)
def test_an_epoch_has_its_least_steps_unless_windows_are_longer(lengths, least, batch_tokens):
    rows = rows_of(*(np.arange(n) for n in lengths))
    packer = batches(rows, [0, 12], batch_tokens=batch_tokens, min_epoch_steps=least)
    epoch = packer.epoch(0)
    targets = sum(lengths) - len(lengths)
    plain = len(batches(rows, [0, 12], batch_tokens=batch_tokens).epoch(0))
    assert len(epoch) == max(plain, min(least, targets // (max(lengths) - 1)))
    assert sum(epoch[i].n_tokens for i in range(len(epoch))) == targets
    if len(epoch) > plain:
        assert all(epoch[i].n_tokens for i in range(len(epoch)))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_are_the_batch_cut_at_seams(circles, domain_starts, size):
    batch = batches(circles, domain_starts).epoch(0)[0]
    parts = [batch.part(rank, size) for rank in range(size)]
    assert np.array_equal(np.concatenate([p.items for p in parts]), batch.items)
    assert np.array_equal(np.concatenate([p.domains for p in parts]), batch.domains)
    seams = [p.first_token + p.cu_seqlens[:-1] for p in parts]
    assert np.array_equal(np.concatenate(seams), batch.cu_seqlens[:-1])


def test_more_workers_than_windows_leave_some_without_any():
    batch = batches(rows_of([0, 1, 2]), [0, 3]).epoch(0)[0]
    parts = [batch.part(rank, 3) for rank in range(3)]
    assert [p.n_tokens for p in parts] == [2, 0, 0]
    assert [p.cu_seqlens.tolist() for p in parts[1:]] == [[2 - 2], [0]]


def share_of_small(temperature):
    rows = [[0, 1, 2]] * 300 + [[5, 6, 7]] * 20
    packer = batches(rows_of(*rows), [0, 5, 10], domain_temperature=temperature)
    domains = [epoch[i].domains for epoch in map(packer.epoch, range(4)) for i in range(len(epoch))]
    return float(np.concatenate(domains).mean()), len(np.concatenate(domains)) / 4


def test_domain_temperature_goes_from_proportional_to_uniform():
    proportional, everything = share_of_small(1.0)
    uniform, as_many = share_of_small(0.0)
    between, _ = share_of_small(0.5)
    assert proportional == 20 / 320
    assert uniform == pytest.approx(0.5, abs=0.03)
    # sqrt(20) / (sqrt(20) + sqrt(300))
    assert between == pytest.approx(0.205, abs=0.02)
    assert as_many == pytest.approx(everything, rel=0.05)


def test_an_epoch_of_packed_batches_has_no_padding_for_the_compiled_model(circles, domain_starts):
    """Each batch is its windows end to end; what walks over tokens walks over nothing else."""
    packer = batches(circles, domain_starts, max_history=5)
    epoch = packer.epoch(0)
    assert sum(epoch[i].n_tokens for i in range(len(epoch))) == packer.n_targets
    for batch in (epoch[i] for i in range(len(epoch))):
        assert np.diff(batch.cu_seqlens).min() >= 1
        assert batch.cu_seqlens[-1] == len(batch.items) == len(batch.targets)
        assert plan(torch.from_numpy(batch.cu_seqlens)).padding_share("cpu") == 0.0


def test_nothing_to_learn_and_items_outside_the_domains_raise():
    with pytest.raises(ValueError, match="no row has two events"):
        batches(rows_of([0], [1]), [0, 2])
    with pytest.raises(ValueError, match="items from 0 to 9, expected 0 to 4"):
        batches(rows_of([0, 9]), [0, 5])


def test_batches_carry_the_times_of_their_input_items():
    rows = rows_of([5, 6, 7], [1, 2], [9, 8, 7, 6])
    times = np.arange(100, 109)
    made = batches(rows, [0, 10], max_history=2, times=times)
    batch = made.pack(np.arange(len(made.windows.lengths)))
    where = {int(time): item for time, item in zip(times, rows.items, strict=True)}
    assert [where[int(time)] for time in batch.times] == batch.items.tolist()
    parts = [batch.part(rank, 2) for rank in range(2)]
    assert np.concatenate([part.times for part in parts]).tolist() == batch.times.tolist()
    assert batches(rows, [0, 10]).epoch(0)[0].times is None
    with pytest.raises(ValueError, match=r"times: got \[3\], expected \[9\]"):
        batches(rows, [0, 10], times=times[:3])


def test_skipped_targets_are_the_next_ones_of_their_window():
    rows = rows_of(range(6), [7, 8], *[range(40)] * 60)
    packer = batches(rows, [0, 7, 40], skip_share=0.25, batch_tokens=100_000)
    epoch = packer.epoch(1)
    batch, again = epoch[0], packer.epoch(1)[0]
    plain = batches(rows, [0, 7, 40], batch_tokens=100_000).epoch(1)[0]
    assert batch.targets.tolist() == again.targets.tolist()
    assert batch.items.tolist() == plain.items.tolist()
    ends = np.repeat(plain.targets[plain.cu_seqlens[1:] - 1], np.diff(plain.cu_seqlens))
    # Items of a row count up, so that a target says how many were skipped for it.
    ahead = batch.targets - plain.targets
    room = ends - plain.targets
    assert set(ahead) == {0, 1, 2}
    assert (ahead <= room).all()
    assert (batch.domains == (batch.targets >= 7)).all()
    free = room >= 2
    shares = np.bincount(ahead[free]) / free.sum()
    assert shares == pytest.approx([0.75, 0.25 * 0.75, 0.25 * 0.25], abs=0.03)
    assert (packer.epoch(2)[0].targets - packer.epoch(2)[0].items != ahead + 1).any()


def test_without_a_share_nothing_is_skipped(circles, domain_starts):
    batch = batches(circles, domain_starts).epoch(0)[0]
    assert batches(circles, domain_starts, skip_share=0.0).epoch(0)[0].targets.tolist() == (
        batch.targets.tolist()
    )
