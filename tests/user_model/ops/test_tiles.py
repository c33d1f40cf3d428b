"""Work lists of the Triton scan, compared literally and for what must hold of any."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from user_model.ops.tiles import (
    FEW_ITEMS,
    GROUP_TILES,
    TILE,
    batch_work,
    both_works,
    choose_mode,
    tile_work,
)

Q = 4


def cu(lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


def test_aligned_by_hand():
    work = tile_work(cu([3, 0, 9, 4]), tile=Q, mode="aligned")
    # first token, end, first tile, sequence; the longest first
    assert work.items.tolist() == [[3, 12, 0, 2], [12, 16, 3, 3], [0, 3, 4, 0]]
    assert work.tiles.tolist() == [[3, 7, 0], [7, 11, 1], [11, 12, 1], [12, 16, 0], [0, 3, 0]]
    assert work.groups.tolist() == []


def test_runs_by_hand():
    """Sequences that begin in the same stretch of four tiles are one item."""
    work = tile_work(cu([5, 7, 8, 1, 2]), tile=Q, mode="runs")
    assert work.items.tolist() == [[0, 20, 0, 0], [20, 23, 5, 0]]
    assert work.tiles[:, 2].tolist() == [0, 1, 1, 1, 1, 0]


def test_long_by_hand():
    work = tile_work(cu([9, 0, 2]), tile=Q, mode="long", group_tiles=1)
    assert work.items.tolist() == [[0, 4, 0, 0], [4, 8, 1, 1], [8, 9, 2, 2], [9, 11, 3, 3]]
    assert work.groups.tolist() == [[0, 0, 3], [2, 3, 4]]
    assert work.tiles[:, 2].tolist() == [0, 0, 0, 0]


@given(
    lengths=st.lists(st.integers(0, 40), max_size=12),
    mode=st.sampled_from(["aligned", "runs", "long"]),
    group=st.integers(1, 3),
)
def test_items_and_tiles_cover_every_token_once(lengths, mode, group):
    bounds = cu(lengths)
    work = tile_work(bounds, tile=Q, mode=mode, group_tiles=group)
    for ranges in (work.items, work.tiles):
        covered = sorted(t for begin, end, *_ in ranges.tolist() for t in range(begin, end))
        assert covered == list(range(sum(lengths)))
    seams = set(bounds.tolist())
    next_tile = 0
    for begin, end, first_tile, _ in work.items.tolist():
        if mode != "long":
            assert {begin, end} <= seams
        cut = [[t, min(t + Q, end), int(t > begin)] for t in range(begin, end, Q)]
        assert first_tile == next_tile
        assert work.tiles[first_tile : first_tile + len(cut)].tolist() == cut
        next_tile += len(cut)
    assert next_tile == len(work.tiles)
    for sequence, first, end in work.groups.tolist():
        assert work.items[first, 0] == bounds[sequence]
        assert work.items[end - 1, 1] == bounds[sequence + 1]


@pytest.mark.parametrize(
    ("lengths", "states", "mode"),
    [
        ([2] * 50, False, "runs"),
        ([2] * 50, True, "aligned"),
        ([Q] * 50, False, "aligned"),
        ([GROUP_TILES * Q + 1], False, "long"),
        ([GROUP_TILES * Q], False, "aligned"),
        ([GROUP_TILES * Q + 1] * FEW_ITEMS, True, "aligned"),
        ([], False, "aligned"),
    ],
)
def test_the_rule(lengths, states, mode):
    assert choose_mode(torch.tensor(lengths, dtype=torch.int64), tile=Q, states=states) == mode


def test_a_very_long_sequence_has_a_bounded_number_of_items():
    work = tile_work(cu([Q * 100_000]), tile=Q, mode="long")
    assert len(work.items) <= 128


@pytest.mark.parametrize(
    ("lengths", "modes"),
    [
        ([2] * 50, ("runs", "aligned")),
        ([TILE] * 3, ("aligned", "aligned")),
        ([GROUP_TILES * TILE + 1], ("long", "long")),
    ],
)
def test_both_works_are_those_of_the_rule(lengths, modes):
    works = both_works(cu(lengths), torch.device("cpu"))
    assert tuple(work.mode for work in works) == modes
    for work, states in zip(works, (False, True), strict=True):
        made = batch_work(cu(lengths), states=states)
        for name in ("items", "tiles", "groups"):
            assert torch.equal(getattr(work, name), getattr(made, name))
