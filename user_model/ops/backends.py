"""Which implementation of an op runs: named by the caller or chosen by device, never swapped."""

import functools
import importlib.util
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

logger = logging.getLogger(__name__)

KNOWN = ("reference", "torch", "cpu", "triton", "mamba_ssm")
# Those that take tensors on a CPU without an interpreter.
ON_CPU = ("reference", "torch", "cpu")


class BackendUnavailableError(ValueError):
    """A backend that is known by name, but not there on this machine, or not for what was asked."""


def resolve(op: str, backend: str, available: Sequence[str], device: torch.device) -> str:
    """Turn the `backend` argument of an op into the name of the implementation that runs.

    Args:
        op: name of the public function, for messages.
        backend: what the caller asked for. "auto" takes "triton" for tensors on a GPU and "cpu"
            for those on a CPU where the op has them, and "torch" otherwise.
        available: implementations of this op.
        device: where the tensors are.

    Raises:
        BackendUnavailableError: the op has no such backend, or it does not run here.
        ValueError: no backend has this name.
    """
    if backend == "auto":
        taken = _choose(available, device)
        if not torch.compiler.is_compiling():
            _announce(op, taken, device.type)
        return taken
    exist = ", ".join(repr(name) for name in ("auto", *available))
    if backend not in KNOWN:
        raise ValueError(f"{op}: got backend {backend!r}, expected one of {exist}")
    if backend not in available:
        raise BackendUnavailableError(
            f"{op}: backend {backend!r} is not available for it; use one of {exist}"
        )
    if backend == "cpu":
        require_cpu(op, device)
    return backend


def require_cpu(op: str, device: torch.device) -> None:
    """Raise BackendUnavailableError unless the compiled CPU kernels can run on `device`."""
    if device.type != "cpu":
        raise BackendUnavailableError(
            f"{op}: backend 'cpu' got tensors on {device}, expected them on the CPU; "
            "move them, or use 'auto'"
        )
    problem = cpu_problem()
    if problem:
        raise BackendUnavailableError(
            f"{op}: backend 'cpu' cannot be compiled here ({problem}); use 'torch', or mend it"
        )


def runs_compiled(op: str, backend: str, values: torch.Tensor) -> bool:
    """Whether the compiled form of an op runs that has "torch" and "cpu" alone.

    Other backends' models run PyTorch's operations there.

    Raises:
        ValueError: as `resolve` does.
    """
    if backend in ("reference", "triton", "mamba_ssm"):
        return False
    return resolve(op, backend, ("torch", "cpu"), values.device) == "cpu"


def runs_compiled_if(pays: bool, op: str, backend: str, values: torch.Tensor) -> bool:
    """Whether it runs for float32 or float64; "auto" takes it only where it pays.

    Args:
        pays: whether the compiled form is the faster one for tensors of this size.
        op: name of the public function, for messages.
        backend: what the caller asked for.
        values: of the op, on its device.

    Raises:
        ValueError: as `resolve` does.
    """
    if backend == "auto" and not pays:
        return False
    exact = values.dtype in (torch.float32, torch.float64)
    return runs_compiled(op, backend, values) and exact


def _choose(available: Sequence[str], device: torch.device) -> str:
    if device.type == "cuda" and "triton" in available and triton_found():
        return "triton"
    if device.type == "cpu" and "cpu" in available:
        if not cpu_problem():
            return "cpu"
        if not torch.compiler.is_compiling():
            _warn_without_cpu()
    return "torch"


Function = TypeVar("Function", bound=Callable[..., Any])


def constant(function: Function) -> Function:
    """Let torch.compile take what the function returns as it is.

    torch.compiler.assume_constant_result does the same, but imports torch._dynamo for it, which
    takes as long as all of torch.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant
def triton_found() -> bool:
    """Whether triton is installed."""
    return _found("triton")


@constant
def cpu_problem() -> str:
    """Say what keeps the CPU kernels from being compiled; an empty string where nothing does."""
    return _cpu_problem()


@functools.cache
def _found(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@functools.cache
def _cpu_problem() -> str:
    try:
        from user_model.ops import (  # noqa: F401
            convolution_cpu,
            dropout_cpu,
            elementwise_cpu,
            grouped_linear_cpu,
            rms_norm_cpu,
            running_sum_cpu,
            scan_cpu,
        )
    except Exception as error:  # whatever numba finds missing: said once, and torch is as right
        return f"{type(error).__name__}: {error}"
    return ""


@functools.cache
def _warn_without_cpu() -> None:
    logger.warning(
        "backend 'auto': the compiled CPU kernels are missing (%s); 'torch' runs instead, "
        "several times slower",
        cpu_problem(),
    )


@functools.cache
def _announce(op: str, backend: str, device: str) -> None:
    logger.info("%s: backend 'auto' takes %r on %s", op, backend, device)
