"""Packed sequences: where each token belongs, and how tokens are cut into chunks.

A batch is packed: the tokens of S sequences stand one after the other, and `cu_seqlens` [S+1]
holds where each begins and the last one ends. `plan` turns it into index lists once a batch; every
layer and every op of the batch reuses them.

Chunks never cross a seam: each belongs to one sequence, its last chunk is padded. So a sequence's
result cannot depend on its neighbours (a NaN stays where it is), and the decay mask is one
triangle for all chunks. Chunks are ordered by their step within the sequence, longest sequence
first, so that the states of step k are a prefix of those of step k-1: the recurrence over chunks
is one contiguous multiply-add a step, with no work for sequences that have ended.

Shapes: T tokens, S sequences, G chunks, Q tokens a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from user_model.ops.tiles import TILE, TileWork, batch_work, both_works, triton_may_run

LONGEST_CHUNK = 32
# The cost of a choice, in entries of the Q x Q matrices (a fit to CPU timings at N = P = 32): a
# slot is a row of Q and its gathers; a chunk carries a state once any sequence has two chunks.
SLOT_COST = 16
STATE_COST = 512


@dataclass(frozen=True, eq=False)
class Plan:
    """Index lists of one packed batch; made by `plan`, all but `step_counts` on one device.

    Whatever is a size of a tensor is read from it: where torch.compile traces a Plan, sizes are
    symbols, so that a batch of other lengths needs no other graph.

    Attributes:
        cu_seqlens: int64 [S+1].
        segments: int64 [T], the sequence of each token.
        positions: int64 [T], 0 at the first token of each sequence.
        max_length: tokens of the longest sequence.
        chunk: Q.
        step_counts: int64 on the CPU, how many sequences have a first, second, ... chunk; sums
            to G.
        slot_tokens: int64 [G*Q], the token in each slot; padding repeats the sequence's last token.
        padding: bool [G, Q], True where the slot is padding; None if no slot is.
        token_slots: int64 [T], the slot of each token.
        order: int64 [F], the non-empty sequences, most chunks first.
        last_chunks: int64 [F], the last chunk of each sequence of `order`.
        tile_works: what the Triton scan walks over, without and with states; None where Triton
            cannot run, and in a plan made by `of`.
    """

    cu_seqlens: Tensor
    segments: Tensor
    positions: Tensor
    max_length: int
    chunk: int
    step_counts: Tensor
    slot_tokens: Tensor
    padding: Tensor | None
    token_slots: Tensor
    order: Tensor
    last_chunks: Tensor
    tile_works: tuple[TileWork, TileWork] | None = None

    @property
    def n_tokens(self) -> int:
        """T."""
        return self.segments.shape[0]

    @property
    def n_sequences(self) -> int:
        """S, empty ones included."""
        return self.cu_seqlens.shape[0] - 1

    @property
    def n_chunks(self) -> int:
        """G."""
        return self.slot_tokens.shape[0] // self.chunk

    @property
    def n_first(self) -> int:
        """F, how many chunks are the first of their sequence; they are chunks 0 .. F-1."""
        return self.order.shape[0]

    @property
    def n_steps(self) -> int:
        """Chunks of the longest sequence."""
        return self.step_counts.shape[0]

    @property
    def step_sizes(self) -> tuple[int, ...]:
        """`step_counts` as Python integers; not for code that torch.compile traces."""
        return tuple(self.step_counts.tolist())

    def tile_work(self, *, states: bool) -> TileWork:
        """Return what the Triton scan walks over; made on the host if the plan holds none.

        Args:
            states: whether initial or final states are asked for.
        """
        if self.tile_works is None:
            return batch_work(self.cu_seqlens, states=states)
        return self.tile_works[states]

    def padding_share(self, backend: str) -> float:
        """Return the share of the slots that the backend's scan computes and that hold no token.

        Args:
            backend: "reference" and "cpu" walk the tokens alone: 0; "torch" fills up the last chunk
                of each sequence, "triton" the last tile of each work item (without states).

        Raises:
            ValueError: the backend's slots are not known here.
        """
        if backend in ("reference", "cpu"):
            return 0.0
        if backend == "torch":
            slots = self.slot_tokens.shape[0]
        elif backend == "triton":
            slots = TILE * self.tile_work(states=False).tiles.shape[0]
        else:
            raise ValueError(
                f"padding_share: got backend {backend!r}, expected 'reference', 'cpu', 'torch' or "
                "'triton'"
            )
        return 1.0 - self.n_tokens / slots if slots else 0.0

    def tensors(self) -> list[Tensor]:
        """Return the tensors, in a fixed order, as custom ops take them; no padding is bool [0].

        Those of `tile_works` are not among them: the Triton scan takes them by themselves.
        """
        padding = self.padding
        if padding is None:
            padding = torch.empty(0, dtype=torch.bool, device=self.segments.device)
        return [
            self.cu_seqlens, self.segments, self.positions, self.step_counts, self.slot_tokens,
            padding, self.token_slots, self.order, self.last_chunks,
        ]  # fmt: skip

    def integers(self) -> list[int]:
        """Return the numbers that no tensor's size tells, as custom ops take them."""
        return [self.max_length, self.chunk]

    @staticmethod
    def of(tensors: Sequence[Tensor], integers: Sequence[int]) -> Plan:
        """Return the plan again whose `tensors()` and `integers()` these are."""
        cu, segments, positions, step_counts, slots, padding, token_slots, order, last = tensors
        max_length, chunk = integers
        return Plan(
            cu_seqlens=cu,
            segments=segments,
            positions=positions,
            max_length=max_length,
            chunk=chunk,
            step_counts=step_counts,
            slot_tokens=slots,
            padding=padding if padding.shape[0] else None,
            token_slots=token_slots,
            order=order,
            last_chunks=last,
        )

    def check(self, cu_seqlens: Tensor, n_tokens: int) -> None:
        """Raise ValueError unless this plan was made for this batch."""
        same = self.cu_seqlens is cu_seqlens or (
            self.cu_seqlens.device == cu_seqlens.device and torch.equal(self.cu_seqlens, cu_seqlens)
        )
        if not same or self.n_tokens != n_tokens:
            raise ValueError(
                f"plan: made for {self.n_sequences} sequences with {self.n_tokens} tokens, got a "
                f"batch of {cu_seqlens.numel() - 1} sequences with {n_tokens} tokens or other "
                "seams; make one plan(cu_seqlens) for each batch"
            )


def check_cu_seqlens(cu_seqlens: Tensor) -> None:
    """Raise ValueError unless `cu_seqlens` is int64 [S+1], begins at 0 and never decreases."""
    if cu_seqlens.dtype != torch.int64 or cu_seqlens.dim() != 1 or cu_seqlens.numel() == 0:
        raise ValueError(
            f"cu_seqlens: got {cu_seqlens.dtype} {list(cu_seqlens.shape)}, expected int64 [S+1] "
            "(the start of each sequence, then the number of tokens)"
        )
    if int(cu_seqlens[0]) != 0 or bool((cu_seqlens.diff() < 0).any()):
        raise ValueError(
            "cu_seqlens: expected to begin at 0 and never to decrease, got "
            f"{cu_seqlens[:8].tolist()}{' ...' if cu_seqlens.numel() > 8 else ''}"
        )


def plan(cu_seqlens: Tensor, *, chunk: int | None = None) -> Plan:
    """Make the index lists of a packed batch, on the host, once for all layers.

    Args:
        cu_seqlens: int64 [S+1], begins at 0, never decreases; empty sequences are allowed.
        chunk: Q, tokens a chunk, at least 1; None takes the cheapest of 1 .. 32 for these lengths.

    Raises:
        ValueError: `cu_seqlens` or `chunk` is not as described.
    """
    check_cu_seqlens(cu_seqlens)
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: got {chunk}, expected an integer of at least 1, or None")
    device, cu = cu_seqlens.device, cu_seqlens.cpu()
    lengths = cu.diff()
    size = chunk or _cheapest_chunk(lengths)
    n_tokens, n_sequences = int(cu[-1]), lengths.numel()
    segments = torch.repeat_interleave(torch.arange(n_sequences), lengths)
    positions = torch.arange(n_tokens) - cu[segments]

    chunks_S = (lengths + size - 1) // size
    order = torch.argsort(chunks_S, descending=True, stable=True)[: int((lengths > 0).sum())]
    sizes = chunks_S.bincount().flip(0).cumsum(0).flip(0)[1:]
    starts = sizes.cumsum(0) - sizes
    rank = torch.empty(n_sequences, dtype=torch.int64)
    rank[order] = torch.arange(order.numel())

    step_G = torch.repeat_interleave(torch.arange(sizes.numel()), sizes)
    sequence_G = order[torch.arange(step_G.numel()) - starts[step_G]]
    slots = (cu[sequence_G] + step_G * size)[:, None] + torch.arange(size)
    ends = cu[sequence_G + 1][:, None]
    padding = slots >= ends
    return Plan(
        cu_seqlens=cu_seqlens,
        segments=segments.to(device),
        positions=positions.to(device),
        max_length=int(lengths.max()) if n_sequences else 0,
        chunk=size,
        step_counts=sizes.clone(),  # a tensor of its own: torch.compile follows views to their base
        slot_tokens=torch.minimum(slots, ends - 1).flatten().to(device),
        padding=padding.to(device) if bool(padding.any()) else None,
        token_slots=((starts[positions // size] + rank[segments]) * size + positions % size).to(
            device
        ),
        order=order.to(device),
        last_chunks=(starts[chunks_S[order] - 1] + torch.arange(order.numel())).to(device),
        tile_works=both_works(cu, device) if triton_may_run(device) else None,
    )


def planned(cu_seqlens: Tensor, n_tokens: int, given: Plan | None) -> Plan:
    """Return the plan of this batch: `given`, checked, or a new one.

    Raises:
        ValueError: `cu_seqlens` does not end at `n_tokens`, or `given` is another batch's plan.
    """
    if given is not None:
        given.check(cu_seqlens, n_tokens)
        return given
    made = plan(cu_seqlens)
    if made.n_tokens != n_tokens:
        raise ValueError(
            f"cu_seqlens: ends at {made.n_tokens}, expected {n_tokens}, the number of tokens (rows)"
        )
    return made


def _cheapest_chunk(lengths: Tensor) -> int:
    if not lengths.numel():
        return LONGEST_CHUNK
    longest = int(lengths.max())

    def cost(size: int) -> int:
        n_chunks = int(((lengths + size - 1) // size).sum())
        return n_chunks * (size * (size + SLOT_COST) + (STATE_COST if longest > size else 0))

    return min(range(1, LONGEST_CHUNK + 1), key=cost)
