"""The index lists of a packed batch, compared literally on examples small enough to read."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from user_model.ops import Plan, plan


def test_small_example_literally():
    made = plan(torch.tensor([0, 2, 2, 7, 8]), chunk=2)
    assert made.segments.tolist() == [0, 0, 2, 2, 2, 2, 2, 3]
    assert made.positions.tolist() == [0, 1, 0, 1, 2, 3, 4, 0]
    assert (made.n_tokens, made.n_sequences, made.max_length) == (8, 4, 5)
    # Sequence 2 has three chunks, 0 and 3 have one; first chunks first, longest sequence first.
    assert made.order.tolist() == [2, 0, 3]
    assert made.step_sizes == (3, 1, 1)
    assert made.slot_tokens.view(-1, 2).tolist() == [[2, 3], [0, 1], [7, 7], [4, 5], [6, 6]]
    assert made.padding.tolist() == [[False, c in (2, 4)] for c in range(5)]
    assert made.token_slots.tolist() == [2, 3, 0, 1, 6, 7, 8, 4]
    assert made.last_chunks.tolist() == [4, 1, 2]


def test_no_padding_is_none():
    assert plan(torch.tensor([0, 4, 8]), chunk=4).padding is None


@given(
    lengths=st.lists(st.integers(0, 70), max_size=12),
    chunk=st.sampled_from([None, 1, 2, 7, 16, 32]),
)
def test_every_token_has_its_slot_and_chunks_keep_to_one_sequence(lengths, chunk):
    made = plan(torch.tensor([0, *lengths]).cumsum(0), chunk=chunk)
    tokens = torch.arange(sum(lengths))
    assert torch.equal(made.slot_tokens[made.token_slots], tokens)
    filled = made.n_chunks * made.chunk
    assert made.slot_tokens.numel() == filled
    unpadded = filled - (0 if made.padding is None else int(made.padding.sum()))
    assert unpadded == len(tokens)
    of_chunk = made.segments[made.slot_tokens].view(-1, made.chunk)
    assert bool((of_chunk == of_chunk[:, :1]).all())
    ends = (torch.tensor(lengths, dtype=torch.int64).cumsum(0) - 1)[made.order]
    last_slots = made.slot_tokens.view(-1, made.chunk)[made.last_chunks, -1]
    assert torch.equal(last_slots, ends)


@pytest.mark.parametrize(
    ("length", "chunk"),
    [(1, 1), (3, 3), (8, 8), (12, 12), (20, 20), (50, 25), (1000, 25), (37, 19)],
)
def test_chunk_fits_the_lengths(length, chunk):
    assert plan(torch.arange(0, 4001, length)).chunk == chunk


@pytest.mark.parametrize(
    "wrong",
    [
        torch.tensor([0, 2], dtype=torch.int32),
        torch.tensor([[0, 2]]),
        torch.tensor([], dtype=torch.int64),
        torch.tensor([1, 2]),
        torch.tensor([0, 5, 3]),
    ],
    ids=["int32", "2-D", "empty", "begins at 1", "decreases"],
)
def test_wrong_bounds_are_named(wrong):
    with pytest.raises(ValueError, match=r"cu_seqlens: .*expected"):
        plan(wrong)


def test_wrong_chunk_is_named():
    with pytest.raises(ValueError, match="chunk: got 0"):
        plan(torch.tensor([0, 2]), chunk=0)


def test_tensors_and_integers_say_everything(bounds):
    for lengths in ([3, 0, 9, 1], [4, 4], []):
        made = plan(bounds(lengths), chunk=4)
        again = Plan.of(made.tensors(), made.integers())
        for field in fields(Plan):
            got, want = getattr(again, field.name), getattr(made, field.name)
            same = torch.equal(got, want) if isinstance(want, torch.Tensor) else got == want
            assert same, field.name


def test_share_of_padding():
    made = plan(torch.tensor([0, 3, 8]), chunk=4)  # 12 slots hold 8 tokens
    assert made.padding_share("torch") == pytest.approx(1 / 3)
    assert made.padding_share("cpu") == made.padding_share("reference") == 0.0
    # Tiles of 16 tokens: a sequence each, and a run of both.
    assert plan(torch.tensor([0, 16, 40])).padding_share("triton") == pytest.approx(1 - 40 / 48)
    assert made.padding_share("triton") == 0.5
    for backend in ("torch", "triton"):
        assert plan(torch.tensor([0, 0])).padding_share(backend) == 0.0
    with pytest.raises(ValueError, match="padding_share: got backend 'abacus'"):
        made.padding_share("abacus")


def test_a_plan_keeps_the_work_of_triton_where_triton_can_run(monkeypatch):
    bounds = torch.arange(0, 101, 2)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    without = plan(bounds)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    kept = plan(bounds)
    assert without.tile_works is None
    for states, mode in ((False, "runs"), (True, "aligned")):
        work = kept.tile_work(states=states)
        assert work is kept.tile_work(states=states)
        assert work.mode == mode
        assert torch.equal(work.items, without.tile_work(states=states).items)


@pytest.mark.parametrize("length", [10, 20, 50, 100, 200, 1000])
def test_equal_lengths_leave_next_to_no_padding(length):
    assert plan(torch.arange(0, 4001, length)).padding_share("torch") < 0.03
