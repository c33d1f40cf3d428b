"""What the scan can't be faster than on the machine at hand: its arithmetic, and its traffic.

"multiply-adds" is what the recurrence's own would take at the machine's measured float32 GEMM peak:
two passes over the state a token forward, six backward. The chunked matrix form needs more, not
fewer. It bounds nothing where torch's matrix products are slow (on an AMD Zen 5 our tiles ran at
twice their peak).

"traffic" is what moving the op's inputs and results through memory once takes at the measured rate:
the inputs forward and, with the gradient of the result, backward (by then the caches hold others),
the result, and the gradient of every input. It supposes that no result is fetched before it is
written.

Neither holds alone on a machine where both are near: an op that did nothing while it waits for
memory would take their sum, one that hides all of the smaller behind the greater that alone.

Shapes: T tokens, H heads, P head width, N state.
"""

from functools import partial
from typing import NamedTuple

import torch

from benchmarks.harness import alternate
from benchmarks.projections import gemm_peak
from benchmarks.scan_report import Setting

# Multiply-adds an element of the state and token: forward 2, backward 6.
PASSES = 8
_FLOAT = 4  # bytes


class Floors(NamedTuple):
    """Seconds of forward and backward that an op on T tokens can't be under."""

    multiply_adds: float
    traffic: float


class Machine(NamedTuple):
    """What the threads at hand do at best.

    Attributes:
        flop: a second, in square float32 matrix products.
        memory: bytes a second, read and written, in copies too large for the caches.
    """

    flop: float
    memory: float

    @classmethod
    def measured(cls, setting: Setting) -> "Machine":
        """Measure both."""
        return cls(gemm_peak(setting), memory_rate(setting))

    def floors(self, *, tokens: int, heads: int, width: int, state: int) -> Floors:
        """The floors of the whole op, y * RoPE(z), in float32."""
        return Floors(
            2 * PASSES * tokens * heads * width * state / self.flop,
            tokens * traffic_a_token(heads, width, state) / self.memory,
        )


def traffic_a_token(heads: int, width: int, state: int) -> int:
    """Bytes a token that the whole op reads and writes, forward and backward, in float32."""
    inputs = 2 * width + 2 * state + 1  # x, z; B, C; dt
    forward = inputs + width
    backward = inputs + width + inputs
    return _FLOAT * heads * (forward + backward)


def memory_rate(setting: Setting) -> float:
    """Return the best bytes a second, read and written, of copies on the threads at hand."""
    source = torch.zeros(setting.copied // _FLOAT)
    target = torch.empty_like(source)
    runs = {"copy": partial(target.copy_, source)}
    return 2 * setting.copied / min(alternate(runs, setting.repetitions)["copy"])
