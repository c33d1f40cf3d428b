"""The fixed table of what the Triton scan is compiled with, and what ships for the AOT gate.

Nothing is tuned at run time. The table holds what compiles without a register spill, chosen on that
evidence alone until a GPU has timed it: tiles of 32 tokens spill a few registers in the backward,
tiles of 16 none. The exception is float32 with a width of 64: its products run without tensor cores
and spill at every number of warps tried, so it works, but is not of the gate. KERNELS design; the
numbers are our choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from user_model.ops.backends import BackendUnavailableError
from user_model.ops.convolution_triton import NAMES
from user_model.ops.scan_triton_backward import backward_items, backward_tiles
from user_model.ops.scan_triton_forward import scan_forward
from user_model.ops.scan_triton_long import group_states, pass_states

WIDTHS = (16, 32, 64)
ARCHITECTURES = (80, 90)
PASS_BLOCK = 256  # entries of a state that a program of `pass_states` takes
PASS_WARPS = 2

Signature = tuple[Any, dict[str, str], dict[str, Any], int, int, tuple[int, ...]]


@dataclass(frozen=True)
class Config:
    """How the kernels of one shape are compiled.

    Attributes:
        P: head width.
        N: state.
        arch: compute capability times 10; the row serves later ones too, up to the next row.
        itemsize: bytes of an element of x; the row of 4 serves float64 too.
        tile: Q, tokens a tile.
        num_warps: of every kernel.
        gated: whether it is known to compile without a spill.
        num_stages: 1, no prefetch: a second one costs registers, and Blackwell wants 1.
    """

    P: int
    N: int
    arch: int
    itemsize: int
    tile: int
    num_warps: int
    gated: bool
    num_stages: int = 1


def _row(P: int, N: int, arch: int, itemsize: int) -> Config:
    # Products of float32 run without tensor cores, and hold more operands in registers.
    wide = max(P, N) == WIDTHS[-1]
    warps = (2 if itemsize == 2 else 4) * (2 if wide else 1)
    if (P, N, arch, itemsize) == (64, 64, 80, 2):  # with 4 the backward spills 24 bytes
        warps = 8
    return Config(P, N, arch, itemsize, 16, warps, gated=itemsize == 2 or not wide)


SHIPPED_CONFIGS = [_row(*key) for key in product(WIDTHS, WIDTHS, ARCHITECTURES, (2, 4))]


def config_for(x_THP: Tensor, N: int) -> Config:
    """Return the row of the table for this head width, state, type and device.

    Raises:
        BackendUnavailableError: P or N is not of WIDTHS, or the GPU is older than the table.
    """
    P, arch = x_THP.shape[-1], ARCHITECTURES[0]
    for name, width in (("P, the width of x", P), ("N, the width of B and C", N)):
        if width not in WIDTHS:
            raise BackendUnavailableError(
                f"hydra_scan: backend 'triton': got {name}, of {width}, expected one of {WIDTHS}; "
                "use backend 'torch' or another width"
            )
    if x_THP.is_cuda:
        major, minor = torch.cuda.get_device_capability(x_THP.device)
        arch = 10 * major + minor
    if arch < ARCHITECTURES[0]:
        raise BackendUnavailableError(
            f"hydra_scan: backend 'triton': got a GPU of compute capability {arch / 10}, expected "
            f"{ARCHITECTURES[0] / 10} or later; use backend 'torch'"
        )
    return max(
        (
            row
            for row in SHIPPED_CONFIGS
            if (row.P, row.N) == (P, N) and row.arch <= arch and row.itemsize <= x_THP.itemsize
        ),
        key=lambda row: (row.arch, row.itemsize),
    )


def aot_signatures() -> list[Signature]:
    """Return what is shipped: (kernel, types, constants, warps, stages, architectures).

    Types of arguments are Triton's, "*bf16" a pointer, "i32:16" an integer that 16 divides; an
    absent argument is a constant None. For every gated row of the table, each kernel is here in the
    form that holds most in registers: with z, a bias and both states in aligned mode, with z and a
    bias in runs.
    """
    found: dict[tuple[Any, ...], Signature] = {}
    dtypes = {2: torch.bfloat16, 4: torch.float32}
    for row in sorted(SHIPPED_CONFIGS, key=lambda row: (row.P, row.N) != (32, 32)):
        if not row.gated:
            continue
        for kernel, constants in _forms(row):
            types = _types(kernel, constants, dtypes[row.itemsize])
            warps = PASS_WARPS if kernel is pass_states else row.num_warps
            key = (kernel.__name__, *types.items(), *constants.items(), warps, row.num_stages)
            seen = found[key][-1] if key in found else ()
            architectures = tuple(sorted({*seen, row.arch}))
            found[key] = (kernel, types, constants, warps, row.num_stages, architectures)
    return list(found.values())


def _forms(row: Config) -> Iterator[tuple[Any, dict[str, Any]]]:
    sizes = {"P": row.P, "N": row.N, "Q": row.tile, "ACC": tl.float32}
    aligned: dict[str, Any] = {"SEGMENT": None}
    runs = {"INITIAL": None, "FINAL": None, "DFINAL": None, "DINITIAL": None}
    for absent, carried in ((aligned, True), (runs, False)):
        for kernel in (scan_forward, backward_tiles, backward_items):
            constants = sizes | absent | {"HAS_INITIAL": carried}
            yield kernel, {n: v for n, v in constants.items() if n in kernel.arg_names}
    for reverse in (False, True):
        yield group_states, sizes | {"REVERSE": reverse}
        block = {"STATE": row.P * row.N, "BLOCK": PASS_BLOCK, "ACC": tl.float32}
        yield pass_states, block | {"REVERSE": reverse}


def _types(kernel: Any, constants: dict[str, Any], dtype: torch.dtype) -> dict[str, str]:
    streams = {
        "X",
        "DT",
        "B",
        "C",
        "Z",
        "KEY",
        "VALUE",
        "OUT",
        "DOUT",
        "DY",
        "DZ",
        "DX",
        "DB",
        "DC",
    }
    lists = {"SEGMENT", "TURN_ROW", "ITEMS", "TILES", "GROUPS"}

    def type_of(name: str) -> str:
        if name in streams:
            return f"*{NAMES[dtype]}"
        if name in lists:
            return "*i64"
        if name in ("H", "dt_stride"):
            return "i32"
        return "i32:16" if name.endswith("_stride") else "*fp32"

    names: list[str] = kernel.arg_names
    return {name: type_of(name) for name in names if name not in constants}
