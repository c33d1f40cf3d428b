"""Which implementation of an op runs: named by the caller, never swapped in silence."""

import functools
import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)

PLANNED = ("cpu", "triton", "mamba_ssm")


class BackendUnavailableError(ValueError):
    """A backend that is known by name, but not there in this version or on this machine."""


def resolve(op: str, backend: str, available: Sequence[str]) -> str:
    """Turn the `backend` argument of an op into the name of the implementation that runs.

    Args:
        op: name of the public function, for messages.
        backend: what the caller asked for; "auto" takes the last of `available`.
        available: implementations of this op, slowest first.

    Raises:
        BackendUnavailableError: the backend is planned, but missing from this version.
        ValueError: no backend has this name.
    """
    if backend == "auto":
        _announce(op, available[-1])
        return available[-1]
    if backend in available:
        return backend
    exist = ", ".join(repr(name) for name in ("auto", *available))
    if backend in PLANNED:
        raise BackendUnavailableError(
            f"{op}: backend {backend!r} is not available in this version; use one of {exist}"
        )
    raise ValueError(f"{op}: got backend {backend!r}, expected one of {exist}")


@functools.cache
def _announce(op: str, backend: str) -> None:
    logger.info("%s: backend 'auto' takes %r", op, backend)
