"""Timings of the Triton kernels on a device, beside the floor and the rivals.

Medians by CUDA events, in bfloat16; `benchmarks.gpu_check` asks for them where its ladder holds.
The rivals are the torch backend and, where it is installed, mamba-ssm.
"""

import importlib.util
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_cases import WIDE, Named, Op, bounds, infonce_case, random_source, scan_case
from benchmarks.roofline import floor_seconds
from user_model.ops import hydra_scan, plan
from user_model.ops.convolution_torch import conv_torch
from user_model.ops.infonce_torch import infonce_torch

TOKENS, LENGTHS, REPETITIONS = 65_536, (50, 200, 1000, 4000), 30


def timings(device: str) -> list[dict[str, Any]]:
    """Time forward, and forward and backward, in bfloat16, beside the floor and the rivals."""
    rows: list[dict[str, Any]] = []
    for length in LENGTHS:
        lengths = [length] * (TOKENS // length)
        for op, rivals, inputs in (_timed_scan(device, lengths), _timed_conv(device, lengths)):
            rows += [_row(op, name, length, form, inputs) for name, form in rivals.items()]
    op, rivals, inputs = _timed_infonce(device)
    rows += [_row(op, name, TOKENS, form, inputs) for name, form in rivals.items()]
    for row in rows:
        print(" ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return rows


Timed = tuple[str, dict[str, Op], Named]


def _timed_scan(device: str, lengths: list[int]) -> Timed:
    from user_model.ops.scan_triton import scan_triton

    case = scan_case(device, "aligned", lengths, 32, 32, True, H=4)
    inputs = {n: v for n, v in case.inputs.items() if n != "initial_state"}
    batch = plan(bounds(lengths).to(device))

    def through(form: Callable[..., tuple[Tensor, Tensor | None]]) -> Op:
        return lambda x, dt, A, B, C, D, dt_bias, z: (
            form(x, dt, A, B, C, D, z, batch, dt_bias_H=dt_bias)[0],
        )

    def torch_form(
        x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, dt_bias: Tensor,
        z: Tensor,
    ) -> tuple[Tensor]:  # fmt: skip
        cu = batch.cu_seqlens
        y = hydra_scan(x, dt, A, B, C, D, z, cu, dt_bias=dt_bias, plan=batch, backend="torch")
        return (y,)

    rivals: dict[str, Op] = {"triton": through(scan_triton), "torch": torch_form}
    if importlib.util.find_spec("mamba_ssm") is not None:
        from user_model.ops.scan_mamba_ssm import scan_mamba_ssm

        rivals["mamba_ssm"] = through(scan_mamba_ssm)
    return "scan", rivals, _lend(inputs, device)


def _timed_conv(device: str, lengths: list[int]) -> Timed:
    from user_model.ops.convolution_triton import conv_triton

    batch = plan(bounds(lengths).to(device))
    random = random_source(5)
    inputs = {"x": random(sum(lengths), 384), "weight": random(384, 4), "bias": random(384)}
    rivals: dict[str, Op] = {
        "triton": lambda x, weight, bias: conv_triton(
            x, weight, bias, batch, None, silu=True, return_final_state=False
        )[:1],
        "torch": lambda x, weight, bias: conv_torch(x, weight, bias, batch, None, silu=True)[:1],
    }
    return "conv", rivals, _lend(inputs, device)


def _timed_infonce(device: str, K: int = 512, d: int = 128, V: int = 50_000) -> Timed:
    from user_model.ops.infonce_triton import infonce_triton

    case = infonce_case(device, TOKENS, d, 128, K, V)

    def torch_form(query: Tensor, table: Tensor) -> tuple[Tensor]:
        return (infonce_torch(query.float(), table.float(), *fixed, None, 0.07, 128),)

    generator = torch.Generator(device).manual_seed(8)
    fixed = (
        torch.randint(V, (TOKENS,), generator=generator, device=device),
        torch.randint(V, (TOKENS // 128, K), generator=generator, device=device),
    )
    rivals: dict[str, Op] = {
        "triton": lambda query, table: (infonce_triton(query, table, *fixed, None, 0.07, 128),),
        "torch": torch_form,
    }
    return "infonce", rivals, _lend(case.inputs, device)


def _lend(inputs: Named, device: str) -> Named:
    return {
        name: value.to(device, torch.float32 if name in WIDE else torch.bfloat16).requires_grad_()
        for name, value in inputs.items()
    }


def _row(op: str, name: str, length: int, form: Op, inputs: Named) -> dict[str, Any]:
    leaves = list(inputs.values())
    (y,) = form(**inputs)
    dy = torch.randn_like(y)

    def forward() -> None:
        with torch.no_grad():
            form(**inputs)

    def both() -> None:
        torch.autograd.grad(form(**inputs), leaves, dy)

    seconds = {"forward": _median_seconds(forward), "both": _median_seconds(both)}
    row: dict[str, Any] = {"op": op, "backend": name, "length": length, "tokens": TOKENS}
    for direction, took in seconds.items():
        floor = floor_seconds(op, direction, TOKENS)
        row |= {f"{direction}_us": 1e6 * took, f"{direction}_floors": took / floor}
    return row


def _median_seconds(run: Callable[[], None]) -> float:
    """Time by events on the device's own clock, after a warm-up that compiles."""
    for _ in range(3):
        run()
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(REPETITIONS)]
    for before, after in marks:
        before.record()
        run()
        after.record()
    torch.cuda.synchronize()
    median: float = statistics.median(before.elapsed_time(after) for before, after in marks)
    return 1e-3 * median
