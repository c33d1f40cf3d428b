"""What share of the machine's matrix-product peak the lean block's projections reach.

Each projection is timed as it runs in the block: its input and the gradient of its result are
recorded in a forward and backward of the mixer, with their strides, then it runs alone, forward
and backward. The peak is the best of square products on the same threads, taken in turn with them.

Shapes: T tokens, S sequences, L tokens a sequence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Timing, alternate
from benchmarks.mixers import HydraMixer, forward_backward, tokens
from benchmarks.scan_report import Report, Setting, milliseconds
from user_model.heads import GroupedLinear

BAR = 0.70
# Forward, gradient of the input, gradient of the weight: a multiply and an add each.
FLOP_A_WEIGHT_AND_TOKEN = 6


@dataclass(frozen=True)
class Projection:
    """One projection of the block and what it met there.

    Attributes:
        module: holds one weight.
        x: its input, with the strides that it has in the block; a leaf.
        options: what else the block calls it with.
        dy: the gradient of its result, with the strides that autograd gives it.
    """

    module: nn.Module
    x: Tensor
    options: tuple[Any, ...]
    dy: Tensor

    @property
    def flop(self) -> int:
        """FLOP of forward and backward."""
        (weight,) = self.module.parameters()
        return FLOP_A_WEIGHT_AND_TOKEN * len(self.x) * weight.numel()

    def run(self) -> tuple[Tensor, ...]:
        """Run it forward and backward: the gradients of input and weight."""
        return torch.autograd.grad(
            self.module(self.x, *self.options), [self.x, *self.module.parameters()], self.dy
        )


def projections(length: int, sequences: int) -> dict[str, Projection]:
    """Record the projections of a lean block, by the names of their modules in it."""
    mixer = HydraMixer("lean", length, sequences)
    found = {
        name: module
        for name, module in mixer.block.named_modules()
        if isinstance(module, nn.Linear | GroupedLinear)
    }
    inputs: dict[str, tuple[Any, ...]] = {}
    gradients: dict[str, Tensor] = {}

    def record(name: str, module: nn.Module, given: tuple[Any, ...], y: Tensor) -> None:
        inputs[name] = (given[0].detach().requires_grad_(), given[1:])
        y.register_hook(partial(gradients.__setitem__, name))  # type: ignore[no-untyped-call]

    hooks = [module.register_forward_hook(partial(record, name)) for name, module in found.items()]
    forward_backward(mixer, *tokens(length, sequences))
    for hook in hooks:
        hook.remove()
    assert gradients.keys() == found.keys(), "a projection that the block did not call"
    return {name: Projection(found[name], *inputs[name], gradients[name]) for name in found}


def projections_section(report: Report, setting: Setting) -> None:
    """Print the peak and each projection's share of it; hold the share of all to its bar."""
    length = setting.mixer_lengths[0]
    found = projections(length, setting.sequences(length))
    report.title(f"Projections of the lean block, forward + backward, L={length}, float32")
    side = setting.square
    square = torch.randn(side, side)
    runs: dict[str, Callable[[], object]] = {name: each.run for name, each in found.items()}
    runs["square"] = partial(torch.matmul, square, square)
    seconds = {name: Timing.of(s) for name, s in alternate(runs, setting.repetitions).items()}
    timing = seconds.pop("square")
    peak = 2 * side**3 / timing.low
    report.row(
        f"peak: best of {setting.repetitions} products of {side} x {side}: "
        f"{peak / 1e9:.1f} GFLOP/s",
        section="projections", rival="peak", gflop_a_second=peak / 1e9, **milliseconds(timing),
    )  # fmt: skip
    for name, timing in seconds.items():
        _row(report, name, found[name].flop, timing.median, peak, len(found[name].x))
    flop = sum(each.flop for each in found.values())
    total = sum(timing.median for timing in seconds.values())
    tokens_run = next(len(each.x) for each in found.values())
    _row(report, "all", flop, total, peak, tokens_run)
    report.check("projections: share of the GEMM peak", flop / total / peak, BAR, "least")


def gemm_peak(setting: Setting) -> float:
    """Return the best FLOP a second of square float32 products on the threads at hand."""
    side = setting.square
    square = torch.randn(side, side)
    runs = {"square": partial(torch.matmul, square, square)}
    return 2 * side**3 / min(alternate(runs, setting.repetitions)["square"])


def _row(report: Report, name: str, flop: int, seconds: float, peak: float, tokens: int) -> None:
    rate = flop / seconds
    report.row(
        f"{name:26} {1e3 * seconds:8.2f} ms {rate / 1e9:8.1f} GFLOP/s {100 * rate / peak:6.1f}%",
        section="projections", rival=name, tokens=tokens, median_ms=1e3 * seconds, flop=flop,
        gflop_a_second=rate / 1e9, share_of_peak=rate / peak,
    )  # fmt: skip
