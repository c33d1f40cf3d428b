"""Allocate what the Triton kernels of the scan write, and launch them.

Shapes: T tokens, S sequences, H heads, P head width, N state, W work items, G tiles; J column
blocks of all heads, of M columns each.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from user_model.ops import rotary
from user_model.ops.scan_triton_backward import backward_items, backward_tiles
from user_model.ops.scan_triton_configs import PASS_ENTRIES, PASS_WARPS, blocks_for, config_for
from user_model.ops.scan_triton_forward import scan_forward
from user_model.ops.scan_triton_long import group_states, pass_states
from user_model.ops.tiles import TILE

_SHORTEST_TABLE = 64


@dataclass(frozen=True)
class Scan:
    """Everything that a forward and its backward read, ready for the kernels.

    The streams may be views: their rows are read where they are. `initial` is [S, J, N, M];
    `turn_rows` [T] names each token's row of `turns` [., P], cos and sin side by side; `segments`
    is None unless a tile may hold several sequences; `groups` has no rows unless sequences are cut.
    """

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor | None
    bias: Tensor | None
    initial: Tensor | None
    segments: Tensor | None
    turn_rows: Tensor | None
    turns: Tensor | None
    items: Tensor
    tiles: Tensor
    groups: Tensor
    n_sequences: int

    @property
    def dtype(self) -> torch.dtype:
        """The type of states, decays and accumulators."""
        return torch.promote_types(self.x.dtype, torch.float32)

    @property
    def cut(self) -> bool:
        """Whether sequences are cut into several items."""
        return self.groups.shape[0] > 0

    @property
    def blocks(self) -> int:
        """J / H: how many programs share the columns of a head."""
        return blocks_for(self.x.shape[-1], self.B.shape[-1], self.x.itemsize)

    @property
    def n_blocks(self) -> int:
        """J."""
        return self.x.shape[1] * self.blocks

    @property
    def columns(self) -> int:
        """M."""
        return self.x.shape[-1] // self.blocks

    @property
    def sizes(self) -> dict[str, Any]:
        """What every kernel is specialised on."""
        acc = tl.float64 if self.dtype == torch.float64 else tl.float32
        N = self.B.shape[-1]
        return {"P": self.columns, "N": N, "Q": TILE, "BLOCKS": self.blocks, "ACC": acc}

    def new(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return memory; None is the type of states."""
        return torch.empty(shape, dtype=dtype or self.dtype, device=self.x.device)

    def states(self, rows: int) -> Tensor:
        """Return memory for `rows` states, [rows, J, N, M]."""
        return self.new(rows, self.n_blocks, self.B.shape[-1], self.columns)

    def split(self, states_SHNP: Tensor) -> Tensor:
        """Bring states into the form of the kernels, [S, J, N, M], contiguous."""
        in_blocks = states_SHNP.unflatten(-1, (self.blocks, self.columns)).movedim(-2, 2)
        return in_blocks.flatten(1, 2).contiguous()

    def joined(self, states_SJNM: Tensor) -> Tensor:
        """Undo `split`."""
        by_head = states_SJNM.unflatten(1, (self.x.shape[1], self.blocks))
        return by_head.movedim(2, -2).flatten(-2).contiguous()

    def summed(self, parts_TJ: Tensor) -> Tensor:
        """Add what the blocks of each head found: from [T, J, ...] to [T, H, ...]."""
        if self.blocks == 1:
            return parts_TJ
        return parts_TJ.unflatten(1, (self.x.shape[1], self.blocks)).sum(2)


def make_scan(
    x_THP: Tensor,
    dt_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    z_THP: Tensor | None,
    bias_H: Tensor | None,
    initial_SHNP: Tensor | None,
    offset_S: Tensor | None,
    segments_T: Tensor,
    positions_T: Tensor,
    items: Tensor,
    tiles: Tensor,
    groups: Tensor,
    runs: bool,
    longest: int,
    n_sequences: int,
) -> Scan:
    """Bring the op's arguments into the form that the kernels read."""
    turns = turn_rows = None
    if z_THP is not None:
        turns, turn_rows = _turns(x_THP, positions_T, segments_T, offset_S, longest)
    scan = Scan(
        *(_readable(x_THP), dt_TH if dt_TH.stride(1) == 1 else dt_TH.contiguous()),
        *(A_H.contiguous(), _readable(B_THN), _readable(C_THN), D_H.contiguous()),
        z=None if z_THP is None else _readable(z_THP),
        bias=None if bias_H is None else bias_H.contiguous(),
        initial=None,
        segments=segments_T if runs else None,
        turn_rows=turn_rows,
        turns=turns,
        items=items,
        tiles=tiles,
        groups=groups,
        n_sequences=n_sequences,
    )
    return scan if initial_SHNP is None else replace(scan, initial=scan.split(initial_SHNP))


def forward(scan: Scan, *, final: bool, save: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return y [T, H, P], the final states [S, H, N, P], and what `backward` needs.

    That is the state before each tile [G, J, N, M] and the step of each token [T, J]. What is not
    asked for is [0].
    """
    out_THP = scan.new(*scan.x.shape, dtype=scan.x.dtype)
    states_GJNM = steps_TJ = final_SJNM = None
    if save:
        states_GJNM = scan.states(scan.tiles.shape[0])
        steps_TJ = scan.new(scan.x.shape[0], scan.n_blocks)
    if final:
        final_SJNM = _carried_on(scan, scan.initial)
    initial, written = scan.initial, final_SJNM
    if scan.cut:
        initial = _pass(scan, scan.B, scan.x, initial, written, reverse=False)
        written = None
    if scan.items.shape[0]:
        _launch(
            scan_forward, scan.items, scan,
            scan.x, scan.dt, scan.bias, scan.A, scan.B, scan.C, scan.D, scan.z, scan.segments,
            scan.turn_rows, scan.turns, scan.items, initial, out_THP, written,
            states_GJNM, steps_TJ,
            *_strides(scan.x, scan.dt, scan.B, scan.C, scan.z),
        )  # fmt: skip
    return (
        out_THP,
        scan.new(0) if final_SJNM is None else scan.joined(final_SJNM),
        scan.new(0) if states_GJNM is None else states_GJNM,
        scan.new(0) if steps_TJ is None else steps_TJ,
    )


class Gradients(NamedTuple):
    """The gradients, in the types of what they belong to; None where there is nothing."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor | None
    bias: Tensor | None
    initial: Tensor | None


def backward(
    scan: Scan,
    states_GJNM: Tensor,
    steps_TJ: Tensor,
    dout_THP: Tensor,
    dfinal_SHNP: Tensor | None,
) -> Gradients:
    """Differentiate `forward`, which saved the states and steps."""
    dout_THP, J = dout_THP.contiguous(), scan.n_blocks
    (T, _, N), dtype = scan.B.shape, scan.x.dtype
    W, G = scan.items.shape[0], scan.tiles.shape[0]
    dx = scan.new(*scan.x.shape, dtype=dtype)
    db, dc = (scan.new(T, J, N, dtype=dtype if scan.blocks == 1 else None) for _ in "BC")
    dy, dz = dout_THP, None
    if scan.z is not None:
        dy, dz = (scan.new(*scan.x.shape, dtype=dtype) for _ in "yz")
    dlog_TJ, ddt_TJ = scan.new(T, J), scan.new(T, J)
    da_WJ, dd_GJ = scan.new(W, J), scan.new(G, J)
    carried = {"HAS_INITIAL": scan.cut or scan.initial is not None}
    if G:
        _launch(
            backward_tiles, scan.tiles, scan,
            scan.x, scan.A, scan.B, scan.C, scan.D, scan.z, scan.segments,
            scan.turn_rows, scan.turns, scan.tiles, states_GJNM, steps_TJ, dout_THP,
            dy, dz, dc, dlog_TJ, dd_GJ,
            *_strides(scan.x, scan.B, scan.C, scan.z), **carried,
        )  # fmt: skip

    dlast = None if dfinal_SHNP is None else scan.split(dfinal_SHNP)
    dinitial = None if scan.initial is None else _carried_on(scan, dlast)
    written = dinitial
    if scan.cut:
        dlast = _pass(scan, scan.C, dy, dlast, written, reverse=True)
        written = None
    if W:
        _launch(
            backward_items, scan.items, scan,
            scan.x, scan.dt, scan.bias, scan.A, scan.B, scan.C, scan.D, scan.segments, scan.items,
            states_GJNM, steps_TJ, dy, dlog_TJ, dlast, dx, ddt_TJ, db, written, da_WJ,
            *_strides(scan.x, scan.dt, scan.B, scan.C), **carried,
        )  # fmt: skip
    ddt_TH = scan.summed(ddt_TJ)
    return Gradients(
        dx,
        ddt_TH.to(scan.dt.dtype),
        scan.summed(da_WJ).sum(0).to(scan.A.dtype),
        scan.summed(db).to(dtype),
        scan.summed(dc).to(dtype),
        scan.summed(dd_GJ).sum(0).to(scan.D.dtype),
        dz,
        None if scan.bias is None else ddt_TH.sum(0).to(scan.bias.dtype),
        None
        if dinitial is None or scan.initial is None
        else scan.joined(dinitial).to(scan.initial.dtype),
    )


def _pass(
    scan: Scan, key: Tensor, value: Tensor, first: Tensor | None, last: Tensor | None, reverse: bool
) -> Tensor:
    """Return the state before each item, [W, J, N, M]; write the state after all to `last`."""
    states_WJNM = scan.states(scan.items.shape[0])
    W, J, N, M = states_WJNM.shape
    kept_WJ = scan.new(W, J)
    _launch(
        group_states, scan.items, scan,
        key, value, scan.dt, scan.bias, scan.A, scan.items, states_WJNM, kept_WJ,
        *_strides(key, value, scan.dt), REVERSE=reverse,
    )  # fmt: skip
    grid = (scan.groups.shape[0] * J, N * M // PASS_ENTRIES)
    pass_states[grid](
        states_WJNM, kept_WJ, scan.groups, first, last, J,
        STATE=N * M, ENTRIES=PASS_ENTRIES, ACC=scan.sizes["ACC"], REVERSE=reverse,
        num_warps=PASS_WARPS,
    )  # fmt: skip
    return states_WJNM


def _launch(kernel: Any, programs: Tensor, scan: Scan, *args: Any, **flags: bool) -> None:
    """Run a program for each row of `programs` and each column block."""
    J, row = scan.n_blocks, config_for(scan.x, scan.B.shape[-1])
    options = {"num_warps": row.num_warps, "num_stages": row.num_stages}
    kernel[(programs.shape[0] * J,)](*args, J, **scan.sizes, **flags, **options)


def _strides(*streams: Tensor | None) -> list[int]:
    return [0 if stream is None else stream.stride(0) for stream in streams]


def _readable(stream_THK: Tensor) -> Tensor:
    """Return the tensor itself where each token's heads lie side by side, else a copy."""
    return (
        stream_THK
        if stream_THK.stride()[1:] == (stream_THK.shape[2], 1)
        else stream_THK.contiguous()
    )


def _carried_on(scan: Scan, states_SJNM: Tensor | None) -> Tensor:
    """Return a copy of the states, or zeros: what a sequence without tokens makes of them."""
    carried_SJNM = scan.states(scan.n_sequences)
    return carried_SJNM.zero_() if states_SJNM is None else carried_SJNM.copy_(states_SJNM)


def _turns(
    x_THP: Tensor, positions_T: Tensor, segments_T: Tensor, offset_S: Tensor | None, longest: int
) -> tuple[Tensor, Tensor]:
    """Return the table of turns, [., P] of cos and sin side by side, and each token's row of it."""
    P, double = x_THP.shape[-1], x_THP.dtype == torch.float64
    if offset_S is None:
        # A power of two, so that few tables are kept.
        length = max(_SHORTEST_TABLE, 1 << (longest - 1).bit_length())
        turns, rows_T = _table(length, P, double, x_THP.device), positions_T
    else:
        turns = rotary.turns_at(positions_T + offset_S[segments_T], P, double=double)
        rows_T = torch.arange(positions_T.numel(), device=x_THP.device)
    return torch.view_as_real(turns).flatten(1), rows_T


@functools.lru_cache(maxsize=16)
def _table(length: int, width: int, double: bool, device: torch.device) -> Tensor:
    # Kept across calls: made inside inference_mode, it could not be used in training afterwards.
    with torch.inference_mode(False), torch.no_grad():
        return rotary.turns_at(torch.arange(length, device=device), width, double=double)
