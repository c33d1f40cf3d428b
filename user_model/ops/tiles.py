"""Work lists of the Triton scan: which tokens each program takes; made on the host, once a batch.

A work item is a range of tokens that one program a head walks over, in tiles of Q. Modes:

* aligned: an item is one sequence. Its result is bitwise the same packed or alone.
* runs: an item is a run of whole short sequences, and a tile may hold several of them, kept apart
  by masks: few half-empty tiles. No states go in or come out.
* long: few very long sequences are cut into items of several tiles, in three phases.

KERNELS design; the rule that chooses is our choice. Its numbers are estimates until a GPU has run
them: it needs about 256 programs (132 processors, two programs each) to be busy. A plan makes the
lists before the widths of a model are known, so all kernels have tiles of one size: 16 tokens, with
which none spills a register.

Shapes: T tokens, S sequences, W work items, G tiles, Q tokens a tile.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["aligned", "runs", "long"]

TILE = 16  # Q
RUN_TILES = 4  # tiles in a run: enough runs to fill a GPU from 32k tokens
RUNS_SAVE = 1.5  # runs are taken where aligned items would make this many times their tiles
FEW_ITEMS = 64  # with four heads 256 programs
GROUP_TILES = 16  # tiles in an item of a long sequence, at least
MAX_GROUPS = 128  # items a sequence, about: the serial pass takes a step for each


@dataclass(frozen=True, eq=False)
class TileWork:
    """The work list of one batch, all on one device.

    Attributes:
        mode: how sequences become items.
        items: int64 [W, 4]: first token, end, first tile, row of its states (the sequence; in long
            mode the item), largest item first.
        tiles: int64 [G, 3]: first token, end, and 1 unless it is the first of its item, else 0.
        groups: int64 [S', 3]: sequence, first item, end of items; no rows unless the mode is long.
    """

    mode: Mode
    items: Tensor
    tiles: Tensor
    groups: Tensor


def both_works(cu_seqlens: Tensor, device: torch.device) -> tuple[TileWork, TileWork]:
    """Return the works of a batch without and with states; one object where their mode is one.

    Args:
        cu_seqlens: int64 [S+1], on the host.
        device: where the works go.
    """
    without = batch_work(cu_seqlens, states=False, device=device)
    if without.mode != "runs":  # the only mode that states rule out
        return without, without
    return without, batch_work(cu_seqlens, states=True, device=device)


def batch_work(cu_seqlens: Tensor, *, states: bool, device: torch.device | None = None) -> TileWork:
    """Cut a packed batch in the mode that suits it.

    Args:
        cu_seqlens: int64 [S+1].
        states: whether initial or final states are asked for.
        device: where the work goes; None is that of `cu_seqlens`.
    """
    cu = cu_seqlens.cpu()
    mode = choose_mode(cu.diff(), states=states)
    return tile_work(cu, mode=mode, device=device or cu_seqlens.device)


def triton_may_run(device: torch.device) -> bool:
    """Whether a batch on this device can be one for Triton: a GPU's, or an interpreter's."""
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET", "0") != "0"


def tile_work(
    cu_seqlens: Tensor,
    *,
    mode: Mode,
    tile: int = TILE,
    group_tiles: int | None = None,
    device: torch.device | None = None,
) -> TileWork:
    """Cut a packed batch into work items and tiles.

    Args:
        cu_seqlens: int64 [S+1].
        mode: how sequences become items.
        tile: Q, tokens a tile; the kernels take TILE.
        group_tiles: tiles in an item of a long sequence; None takes GROUP_TILES or more, so that no
            sequence has more than about MAX_GROUPS items.
        device: where the work, which is made on the host, goes; None is that of `cu_seqlens`.
    """
    cu = cu_seqlens.cpu()
    sequences = torch.nonzero(cu.diff()).flatten()
    begins, ends = cu[sequences], cu[sequences + 1]
    groups = torch.empty(0, 3, dtype=torch.int64)
    if mode == "aligned":
        rows = sequences
    elif mode == "runs":
        begins, ends = _runs(begins, ends, RUN_TILES * tile)
        rows = torch.zeros_like(begins)
    else:
        size = tile * (group_tiles or _group_tiles(ends - begins, tile))
        n_items = (ends - begins + size - 1) // size
        first_items = n_items.cumsum(0) - n_items
        groups = torch.stack((sequences, first_items, first_items + n_items), 1)
        begins, ends = _pieces(begins, ends, size)
        rows = torch.arange(begins.numel())
    if mode != "long":  # a long sequence's items stay in order; they are of one size anyway
        largest = torch.argsort(ends - begins, descending=True, stable=True)
        begins, ends, rows = begins[largest], ends[largest], rows[largest]

    n_tiles = (ends - begins + tile - 1) // tile
    items = torch.stack((begins, ends, n_tiles.cumsum(0) - n_tiles, rows), 1)
    of_tiles = torch.repeat_interleave(begins, n_tiles)
    begins, ends = _pieces(begins, ends, tile)
    tiles = torch.stack((begins, ends, (begins > of_tiles).long()), 1)
    device = device or cu_seqlens.device
    return TileWork(mode, items.to(device), tiles.to(device), groups.to(device))


def choose_mode(lengths: Tensor, *, states: bool, tile: int = TILE) -> Mode:
    """Choose how a batch is cut.

    * runs, if no states go in or out and one sequence an item would make RUNS_SAVE times the tiles;
    * long, if there are fewer than FEW_ITEMS sequences and the longest can be cut in two;
    * aligned, else.

    Args:
        lengths: int64 [S], on the host.
        states: whether initial or final states are asked for.
        tile: Q.
    """
    aligned_tiles = int(((lengths + tile - 1) // tile).sum())
    if not states and aligned_tiles > RUNS_SAVE * -(-int(lengths.sum()) // tile):
        return "runs"
    few = int((lengths > 0).sum()) < FEW_ITEMS
    if few and lengths.numel() and int(lengths.max()) > GROUP_TILES * tile:
        return "long"
    return "aligned"


def _pieces(begins: Tensor, ends: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cut each range into pieces of `size` tokens, the last one shorter."""
    n_pieces = (ends - begins + size - 1) // size
    first_piece = torch.repeat_interleave(n_pieces.cumsum(0) - n_pieces, n_pieces)
    number = torch.arange(first_piece.numel()) - first_piece
    cut = torch.repeat_interleave(begins, n_pieces) + number * size
    return cut, torch.minimum(cut + size, torch.repeat_interleave(ends, n_pieces))


def _runs(begins: Tensor, ends: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """Join the sequences that begin in the same stretch of `target` tokens."""
    _, counts = torch.unique_consecutive(begins // target, return_counts=True)
    last = counts.cumsum(0) - 1
    return begins[last - counts + 1], ends[last]


def _group_tiles(lengths: Tensor, tile: int) -> int:
    longest = int(lengths.max()) if lengths.numel() else 0
    return max(GROUP_TILES, -(-longest // (tile * MAX_GROUPS)))
