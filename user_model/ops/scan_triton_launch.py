"""Allocate what the Triton kernels of the scan write, and launch them.

Shapes: T tokens, S sequences, H heads, P head width, N state, W work items, G tiles, R = P/2.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from user_model.ops import rotary
from user_model.ops.scan_triton_backward import backward_items, backward_tiles
from user_model.ops.scan_triton_configs import PASS_BLOCK, PASS_WARPS, config_for
from user_model.ops.scan_triton_forward import scan_forward
from user_model.ops.scan_triton_long import group_states, pass_states

_SHORTEST_TABLE = 64


@dataclass(frozen=True)
class Scan:
    """Everything that a forward and its backward read, ready for the kernels.

    The streams may be views: their rows are read where they are. `initial` is [S, H, N, P];
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
    tile: int
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
    def sizes(self) -> dict[str, Any]:
        """What every kernel is specialised on."""
        acc = tl.float64 if self.dtype == torch.float64 else tl.float32
        return {"P": self.x.shape[-1], "N": self.B.shape[-1], "Q": self.tile, "ACC": acc}

    def states(self, rows: int) -> Tensor:
        """Return memory for `rows` states."""
        H, P, N = *self.x.shape[1:], self.B.shape[-1]
        return torch.empty(rows, H, N, P, dtype=self.dtype, device=self.x.device)


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
    tile: int,
    runs: bool,
    longest: int,
    n_sequences: int,
) -> Scan:
    """Bring the op's arguments into the form that the kernels read."""
    turns = turn_rows = None
    if z_THP is not None:
        turns, turn_rows = _turns(x_THP, positions_T, segments_T, offset_S, longest)
    return Scan(
        *(_readable(x_THP), dt_TH if dt_TH.stride(1) == 1 else dt_TH.contiguous()),
        *(A_H.contiguous(), _readable(B_THN), _readable(C_THN), D_H.contiguous()),
        z=None if z_THP is None else _readable(z_THP),
        bias=None if bias_H is None else bias_H.contiguous(),
        initial=None if initial_SHNP is None else initial_SHNP.contiguous(),
        segments=segments_T if runs else None,
        turn_rows=turn_rows,
        turns=turns,
        items=items,
        tiles=tiles,
        groups=groups,
        tile=tile,
        n_sequences=n_sequences,
    )


def forward(scan: Scan, *, final: bool, save: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return y [T, H, P], the final states [S, H, N, P], and what `backward` needs.

    That is the state before each tile [G, H, N, P] and the step of each token [T, H]. What is not
    asked for is [0].
    """
    out_THP = torch.empty(scan.x.shape, dtype=scan.x.dtype, device=scan.x.device)
    states_GHNP = steps_TH = final_SHNP = None
    if save:
        states_GHNP = scan.states(scan.tiles.shape[0])
        steps_TH = torch.empty(scan.dt.shape, dtype=scan.dtype, device=scan.x.device)
    if final:
        final_SHNP = _carried_on(scan, scan.initial)
    initial, written = scan.initial, final_SHNP
    if scan.cut:
        initial = _pass(scan, scan.B, scan.x, initial, written, reverse=False)
        written = None
    if scan.items.shape[0]:
        _launch(
            scan_forward, scan.items, scan,
            scan.x, scan.dt, scan.bias, scan.A, scan.B, scan.C, scan.D, scan.z, scan.segments,
            scan.turn_rows, scan.turns, scan.items, initial, out_THP, written,
            states_GHNP, steps_TH,
            *_strides(scan.x, scan.dt, scan.B, scan.C, scan.z),
        )  # fmt: skip
    absent = torch.empty(0, dtype=scan.dtype, device=scan.x.device)
    final_SHNP, states_GHNP, steps_TH = (
        absent.clone() if made is None else made for made in (final_SHNP, states_GHNP, steps_TH)
    )
    return out_THP, final_SHNP, states_GHNP, steps_TH


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
    states_GHNP: Tensor,
    steps_TH: Tensor,
    dout_THP: Tensor,
    dfinal_SHNP: Tensor | None,
) -> Gradients:
    """Differentiate `forward`, which saved the states and steps."""
    dout_THP, H = dout_THP.contiguous(), scan.x.shape[1]
    W, G = scan.items.shape[0], scan.tiles.shape[0]
    dx, db, dc = (_like(stream, stream.dtype) for stream in (scan.x, scan.B, scan.C))
    dy, dz = dout_THP, None
    if scan.z is not None:
        dy, dz = _like(scan.x, scan.x.dtype), _like(scan.z, scan.z.dtype)
    dlog_TH, ddt_TH = _like(scan.dt, scan.dtype), _like(scan.dt, scan.dtype)
    da_WH, dd_GH = (steps_TH.new_empty(rows, H) for rows in (W, G))
    carried = {"HAS_INITIAL": scan.cut or scan.initial is not None}
    if G:
        _launch(
            backward_tiles, scan.tiles, scan,
            scan.x, scan.A, scan.B, scan.C, scan.D, scan.z, scan.segments,
            scan.turn_rows, scan.turns, scan.tiles, states_GHNP, steps_TH, dout_THP,
            dy, dz, dc, dlog_TH, dd_GH,
            *_strides(scan.x, scan.B, scan.C, scan.z), **carried,
        )  # fmt: skip

    dinitial = None if scan.initial is None else _carried_on(scan, dfinal_SHNP)
    dlast = None if dfinal_SHNP is None else dfinal_SHNP.contiguous()
    written = dinitial
    if scan.cut:
        dlast = _pass(scan, scan.C, dy, dlast, written, reverse=True)
        written = None
    if W:
        _launch(
            backward_items, scan.items, scan,
            scan.x, scan.dt, scan.bias, scan.A, scan.B, scan.C, scan.D, scan.segments, scan.items,
            states_GHNP, steps_TH, dy, dlog_TH, dlast, dx, ddt_TH, db, written, da_WH,
            *_strides(scan.x, scan.dt, scan.B, scan.C), **carried,
        )  # fmt: skip
    return Gradients(
        dx,
        ddt_TH.to(scan.dt.dtype),
        da_WH.sum(0).to(scan.A.dtype),
        db,
        dc,
        dd_GH.sum(0).to(scan.D.dtype),
        dz,
        None if scan.bias is None else ddt_TH.sum(0).to(scan.bias.dtype),
        None if dinitial is None or scan.initial is None else dinitial.to(scan.initial.dtype),
    )


def _pass(
    scan: Scan, key: Tensor, value: Tensor, first: Tensor | None, last: Tensor | None, reverse: bool
) -> Tensor:
    """Return the state before each item, [W, H, N, P]; write the state after all to `last`."""
    states_WHNP = scan.states(scan.items.shape[0])
    H, N, P = states_WHNP.shape[1:]
    kept_WH = torch.empty(states_WHNP.shape[:2], dtype=scan.dtype, device=scan.x.device)
    _launch(
        group_states, scan.items, scan,
        key, value, scan.dt, scan.bias, scan.A, scan.items, states_WHNP, kept_WH,
        *_strides(key, value, scan.dt), REVERSE=reverse,
    )  # fmt: skip
    grid = (scan.groups.shape[0] * H, N * P // PASS_BLOCK)
    pass_states[grid](
        states_WHNP, kept_WH, scan.groups, first, last, H,
        STATE=N * P, BLOCK=PASS_BLOCK, ACC=scan.sizes["ACC"], REVERSE=reverse,
        num_warps=PASS_WARPS,
    )  # fmt: skip
    return states_WHNP


def _launch(kernel: Any, programs: Tensor, scan: Scan, *args: Any, **flags: bool) -> None:
    """Run a program for each row of `programs` and each head."""
    H, row = scan.x.shape[1], config_for(scan.x, scan.B.shape[-1])
    options = {"num_warps": row.num_warps, "num_stages": row.num_stages}
    kernel[(programs.shape[0] * H,)](*args, H, **scan.sizes, **flags, **options)


def _strides(*streams: Tensor | None) -> list[int]:
    return [0 if stream is None else stream.stride(0) for stream in streams]


def _readable(stream_THK: Tensor) -> Tensor:
    """Return the tensor itself where each token's heads lie side by side, else a copy."""
    return (
        stream_THK
        if stream_THK.stride()[1:] == (stream_THK.shape[2], 1)
        else stream_THK.contiguous()
    )


def _like(stream: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(stream.shape, dtype=dtype, device=stream.device)


def _carried_on(scan: Scan, states_SHNP: Tensor | None) -> Tensor:
    """Return a copy of the states, or zeros: what a sequence without tokens makes of them."""
    if states_SHNP is not None:
        return states_SHNP.to(scan.dtype, memory_format=torch.contiguous_format, copy=True)
    return scan.states(scan.n_sequences).zero_()


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
