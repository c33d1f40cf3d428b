"""The fixed table of what the Triton scan is compiled with, and what ships for the AOT gate.

Nothing is tuned at run time. The table holds what compiles without a register spill and without
wgmma, chosen on that evidence alone until a GPU has timed it. Products of float32 run without
tensor cores and hold their operands in registers: the columns of a wide head are shared among
several programs. KERNELS design; the numbers are our choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from user_model.ops.backends import BackendUnavailableError, constant
from user_model.ops.scan_triton_backward import backward_items, backward_tiles
from user_model.ops.scan_triton_forward import scan_forward
from user_model.ops.scan_triton_long import group_states, pass_states
from user_model.ops.tiles import TILE
from user_model.ops.triton_devices import NAMES

WIDTHS = (16, 32, 64)
ARCHITECTURES = (80, 90)
PASS_ENTRIES = 256  # of a state, that a program of `pass_states` takes
PASS_WARPS = 2

Signature = tuple[Any, dict[str, str], dict[str, Any], int, int, tuple[int, ...]]


@dataclass(frozen=True)
class Config:
    """How the kernels of one shape are compiled.

    Attributes:
        P: head width.
        N: state.
        arch: compute capability times 10; the row serves later ones too, up to the next row.
        itemsize: bytes of an element of x; the row of 4 serves float64 too, which is not gated.
        blocks: programs that share the columns of a head.
        num_warps: of every kernel; fewer than 4 keep Hopper from wgmma.
        num_stages: 1, no prefetch: a second one costs registers, and Blackwell wants 1.
    """

    P: int
    N: int
    arch: int
    itemsize: int
    blocks: int
    num_warps: int
    num_stages: int = 1


def blocks_for(P: int, N: int, itemsize: int) -> int:
    """Return how many programs share the columns of a head; the same on every device."""
    most = 64 if itemsize == 2 else 32  # columns a program
    return max(P // (most if N < 64 else most // 2), 1)


def _row(P: int, N: int, arch: int, itemsize: int) -> Config:
    warps = 2 if itemsize == 2 else 4 if N < 64 else 8
    return Config(P, N, arch, itemsize, blocks_for(P, N, itemsize), warps)


SHIPPED_CONFIGS = [_row(*key) for key in product(WIDTHS, WIDTHS, ARCHITECTURES, (2, 4))]


def check_supported(x_THP: Tensor, N: int) -> None:
    """Raise BackendUnavailableError unless the table has a row for this shape and device."""
    for name, width in (("P, the width of x", x_THP.shape[-1]), ("N, the width of B and C", N)):
        if width not in WIDTHS:
            raise BackendUnavailableError(
                f"hydra_scan: backend 'triton': got {name}, of {width}, expected one of {WIDTHS}; "
                "use backend 'torch' or another width"
            )
    arch = _architecture(x_THP.device) if x_THP.is_cuda else ARCHITECTURES[0]
    if arch < ARCHITECTURES[0]:
        raise BackendUnavailableError(
            f"hydra_scan: backend 'triton': got a GPU of compute capability {arch / 10}, expected "
            f"{ARCHITECTURES[0] / 10} or later; use backend 'torch'"
        )


def config_for(x_THP: Tensor, N: int) -> Config:
    """Return the row of the table for this head width, state, type and device, which it has."""
    P, size = x_THP.shape[-1], x_THP.itemsize
    arch = _architecture(x_THP.device) if x_THP.is_cuda else ARCHITECTURES[0]
    rows = (row for row in SHIPPED_CONFIGS if (row.P, row.N) == (P, N))
    fitting = (row for row in rows if row.arch <= arch and row.itemsize <= size)
    return max(fitting, key=lambda row: (row.arch, row.itemsize))


@constant
def _architecture(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def aot_signatures() -> list[Signature]:
    """Return what is shipped: (kernel, types, constants, warps, stages, architectures).

    Types of arguments are Triton's, "*bf16" a pointer, "i32:16" an integer that 16 divides; an
    absent argument is a constant None. For every row of the table, each kernel is here in the form
    that holds most in registers: with z, a bias and both states in aligned mode, with z and a bias
    in runs.
    """
    found: dict[tuple[Any, ...], Signature] = {}
    dtypes = {2: torch.bfloat16, 4: torch.float32}
    for row in sorted(SHIPPED_CONFIGS, key=lambda row: (row.P, row.N) != (32, 32)):
        for kernel, constants in _forms(row):
            types = _types(kernel, constants, dtypes[row.itemsize])
            warps = PASS_WARPS if kernel is pass_states else row.num_warps
            key = (kernel.__name__, *types.items(), *constants.items(), warps, row.num_stages)
            seen = found[key][-1] if key in found else ()
            architectures = tuple(sorted({*seen, row.arch}))
            found[key] = (kernel, types, constants, warps, row.num_stages, architectures)
    return list(found.values())


def _forms(row: Config) -> Iterator[tuple[Any, dict[str, Any]]]:
    P = row.P // row.blocks
    sizes = {"P": P, "N": row.N, "Q": TILE, "BLOCKS": row.blocks, "ACC": tl.float32}
    aligned: dict[str, Any] = {"SEGMENT": None}
    runs = {"INITIAL": None, "FINAL": None, "DFINAL": None, "DINITIAL": None}
    for absent, carried in ((aligned, True), (runs, False)):
        for kernel in (scan_forward, backward_tiles, backward_items):
            constants = sizes | absent | {"HAS_INITIAL": carried}
            yield kernel, {n: v for n, v in constants.items() if n in kernel.arg_names}
    for reverse in (False, True):
        yield group_states, sizes | {"REVERSE": reverse}
        entries = {"STATE": P * row.N, "ENTRIES": PASS_ENTRIES, "ACC": tl.float32}
        yield pass_states, entries | {"REVERSE": reverse}


def _types(kernel: Any, constants: dict[str, Any], dtype: torch.dtype) -> dict[str, str]:
    streams = {"X", "DT", "B", "C", "Z", "KEY", "VALUE", "OUT", "DOUT", "DY", "DZ", "DX"}
    lists = {"SEGMENT", "TURN_ROW", "ITEMS", "TILES", "GROUPS"}
    if constants.get("BLOCKS", 1) == 1:  # not parts of a sum
        streams |= {"DB", "DC"}

    def type_of(name: str) -> str:
        if name in streams:
            return f"*{NAMES[dtype]}"
        if name in lists:
            return "*i64"
        if name in ("J", "dt_stride"):
            return "i32"
        return "i32:16" if name.endswith("_stride") else "*fp32"

    names: list[str] = kernel.arg_names
    return {name: type_of(name) for name in names if name not in constants}
