"""Prove the Triton kernels on a device, then time them: the day's work when a GPU is there.

    python -m benchmarks.gpu_check

First the ladder: scan in every mode, convolution, InfoNCE, in bfloat16, float16 and float32,
outputs and every gradient against the float64 references on the CPU; a sequence alone against the
same packed, and everything twice, bit by bit. Then, only if all of it holds, timings by CUDA events
against the floor of `benchmarks.roofline`, the torch backend and, where it is installed, mamba-ssm.
Exit status 1 where a check fails, 2 without a device: nothing is claimed that has not run.

`--device cpu` runs the ladder in float32 in Triton's interpreter, and nothing else (with
TRITON_INTERPRET=1), to prove this script.
"""

import argparse
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from benchmarks.gpu_cases import (
    WIDE,
    Case,
    Mode,
    Named,
    Op,
    conv_case,
    infonce_case,
    random_source,
    scan_case,
)
from benchmarks.gpu_timings import timings
from benchmarks.harness import Check, finish, rms_ratio

# RMS ratios; bfloat16 has an eighth of float16's precision.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
LOOSER = {"dA": 1e-3}


def cases(device: str, tiny: bool) -> Iterator[Case]:
    """Make the ladder; `tiny` for the interpreter, which takes 10 ms for a tile."""
    lengths = [1, 2, 3, 0, 18] if tiny else [1, 2, 3, 15, 16, 17, 0, 31, 32, 33, 65, 130, 1000]
    sizes = [(16, 16)] if tiny else [(16, 16), (32, 32), (64, 64), (64, 16)]
    for mode in get_args(Mode):
        for P, N in sizes:
            for gated in (True,) if tiny else (True, False):
                yield scan_case(device, mode, lengths, P, N, gated)
    for W in (4,) if tiny else (2, 3, 4):
        yield conv_case(device, lengths, 6 if tiny else 384, W)
    widths = [(20, 8, 16)] if tiny else [(1000, 128, 128), (130, 64, 64), (300, 20, 128)]
    for T, d, tile in widths:
        yield infonce_case(device, T, d, tile, 20 if tiny else 512)


def held(case: Case, dtype: torch.dtype, device: str) -> list[Check]:
    """Run a case on the device twice and its reference once: worst error, and bits that differ."""
    lent = {
        name: value.to(torch.float32 if name in WIDE else dtype)
        for name, value in case.inputs.items()
    }
    on_device = {name: value.to(device) for name, value in lent.items()}
    got = _with_gradients(case.op, on_device, case.outputs, None)
    again = _with_gradients(case.op, on_device, case.outputs, None)
    exact = {name: value.double() for name, value in lent.items()}
    want = _with_gradients(case.reference, exact, case.outputs, {n: got[n].dtype for n in got})
    shares = {
        name: rms_ratio(got[name].cpu(), want[name]) / max(TOLERANCES[dtype], LOOSER.get(name, 0.0))
        for name in want
    }
    # NaN is the worst of all, and fails.
    worst = max(shares, key=lambda name: math.inf if math.isnan(shares[name]) else shares[name])
    label = f"{case.name} {str(dtype).removeprefix('torch.')}"
    differ = sum(not torch.equal(got[name], again[name]) for name in got)
    return [
        Check(f"{label}: worst error over its tolerance ({worst})", shares[worst], 1.0, "most"),
        Check(f"{label}: tensors that differ when run twice", differ, 0, "most"),
    ]


def packed_is_alone(device: str, dtype: torch.dtype, tiny: bool) -> list[Check]:
    """Run the second of three sequences alone and packed: the same bits, scan and convolution."""
    lengths = [2, 5, 3] if tiny else [40, 37, 100]
    begin, end = lengths[0], lengths[0] + lengths[1]
    checks = []
    for name, packed, alone in (
        (
            "scan",
            scan_case(device, "aligned", lengths, 16, 16, True),
            scan_case(device, "aligned", lengths[1:2], 16, 16, True),
        ),
        ("conv", conv_case(device, lengths, 8, 4), conv_case(device, lengths[1:2], 8, 4)),
    ):
        everything = {
            n: v.to(device, torch.float32 if n in WIDE else dtype) for n, v in packed.inputs.items()
        }
        own = {n: _part(n, v, begin, end) for n, v in everything.items()}
        y, final = packed.op(**everything)
        own_y, own_final = alone.op(**own)
        same = torch.equal(y[begin:end], own_y) and torch.equal(final[1:2], own_final)
        label = f"{name} {str(dtype).removeprefix('torch.')}: packed differs from alone"
        checks.append(Check(label, 1 - same, 0, "most"))
    return checks


def _part(name: str, value: Tensor, begin: int, end: int) -> Tensor:
    """Return what belongs to the second sequence: its tokens, its states, or a parameter."""
    if name in ("initial_state", "tails"):
        return value[1:2]
    return value[begin:end] if name in ("x", "dt", "B", "C", "z") else value


def _with_gradients(
    op: Op, inputs: Named, names: Sequence[str], rounded: Mapping[str, torch.dtype] | None
) -> Named:
    """Return outputs and all gradients; fixed cotangents, rounded as those of the kernels were."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
    outputs = dict(zip(names, op(**leaves), strict=True))
    random = random_source(11)
    cotangents = [
        random(*y.shape).to(rounded[n] if rounded else y.dtype).to(y.device, y.dtype)
        for n, y in outputs.items()
    ]
    gradients = torch.autograd.grad(list(outputs.values()), list(leaves.values()), cotangents)
    named = {f"d{name}": value for name, value in zip(leaves, gradients, strict=True)}
    return {name: value.detach() for name, value in outputs.items()} | named


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, then time; without a device say so."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    device: str = parser.parse_args(arguments).device
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if (device == "cpu") != interpreted or (device == "cuda" and not torch.cuda.is_available()):
        print(
            "benchmarks.gpu_check: nothing was checked, for it needs a CUDA device and "
            "TRITON_INTERPRET unset, or --device cpu with TRITON_INTERPRET=1"
        )
        return 2
    tiny = device == "cpu"
    dtypes = (torch.float32,) if tiny else (torch.bfloat16, torch.float16, torch.float32)
    checks = [
        check
        for dtype in dtypes
        for case in cases(device, tiny)
        for check in held(case, dtype, device)
    ]
    checks += [check for dtype in dtypes for check in packed_is_alone(device, dtype, tiny)]
    rows: list[dict[str, Any]] = []
    if not tiny and all(check.ok for check in checks):
        print(f"timed on {torch.cuda.get_device_name()}")
        rows = timings(device)
    return finish("gpu_check", checks, rows)


if __name__ == "__main__":
    sys.exit(main())
