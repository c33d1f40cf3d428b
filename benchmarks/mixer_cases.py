"""The Hydra mixer against attention, the growth of its time and memory, and the share of padding.

Shapes: T tokens, S sequences, L tokens a sequence.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Timing, alternate, median_ratio, rms_ratio
from benchmarks.mixers import (
    DIM,
    HEADS,
    WIDTH,
    AttentionMixer,
    Head,
    HydraMixer,
    forward_backward,
    tokens,
)
from benchmarks.scan_report import Report, Setting, milliseconds, worst
from user_model import ops

TOLERANCE = 1e-5
SLOWER, FASTER, FAR_FASTER = 1.1, 1.0, 4.0
SLOPE_BAR, PADDING_BAR = 0.05, 0.03


def mixer_section(report: Report, setting: Setting) -> None:
    """Compare with attention at each length; full heads and the same GLU after are beside it."""
    report.title(f"Mixer, forward + backward: d={DIM}, {HEADS} heads of {WIDTH}, float32")
    for length in setting.mixer_lengths:
        if _equal(report, setting, length):
            _against_attention(report, setting, length)
        else:
            report.note(f"L={length}: not timed, for the backends' results differ")


def growth_section(report: Report, setting: Setting) -> None:
    """Fit the growth of the lean mixer's time over L, the number of tokens being the same."""
    report.title(f"Growth of the lean mixer's time, {setting.tokens} tokens")
    runs = {}
    for length in setting.growth_lengths:
        sequences = setting.sequences(length)
        mixer = HydraMixer("lean", length, sequences)
        runs[str(length)] = partial(forward_backward, mixer, *tokens(length, sequences))
    seconds = {int(name): s for name, s in alternate(runs, setting.repetitions).items()}
    timings = {length: Timing.of(taken) for length, taken in seconds.items()}
    for length, timing in timings.items():
        report.row(
            f"L={length:<6} {timing!s:>29}", section="growth", length=length,
            tokens=setting.tokens, **milliseconds(timing),
        )  # fmt: skip
    slope = log_log_slope(list(timings), [timing.median for timing in timings.values()])
    report.row(f"log-log slope {slope:+.4f}", section="growth", slope=slope)
    report.check("growth: |log-log slope| of time over L", abs(slope), SLOPE_BAR, "most")


def log_log_slope(lengths: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the least-squares slope of log(seconds) over log(length)."""
    slope, _ = np.polyfit(np.log(lengths), np.log(seconds), 1)
    return float(slope)


def padding_section(report: Report, setting: Setting) -> None:
    """Print what share of a ragged packed batch's slots is computed and holds no token."""
    lengths = ragged_lengths(setting.tokens)
    plan = ops.plan(torch.cat((lengths.new_zeros(1), lengths.cumsum(0))))
    report.title(f"Padding: {len(lengths)} sequences of {lengths.min()} to {lengths.max()} tokens")
    for backend in ("cpu", "torch"):
        share = plan.padding_share(backend)
        report.row(
            f"backend {backend:5} {100 * share:6.2f}%", section="padding", backend=backend,
            tokens=plan.n_tokens, sequences=plan.n_sequences, padding_share=share,
        )  # fmt: skip
    share = plan.padding_share("cpu")
    report.check("padding: share of slots, backend cpu", share, PADDING_BAR, "most")


def ragged_lengths(total: int, longest: int = 200) -> Tensor:
    """Draw lengths 1 .. longest, log-uniform, as histories are, until they hold `total` tokens."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(total, generator=generator).mul(math.log(longest)).exp().long()
    ends = drawn.cumsum(0)
    return drawn[: int((ends < total).sum()) + 1]


def _equal(report: Report, setting: Setting, length: int) -> bool:
    """Hold the compiled backend's results and every gradient against the torch backend's."""
    verdicts = []
    for head in ("lean", "full"):
        differences = backend_differences(head, length, setting.sequences(length))
        name, value = worst(differences)
        where = ".".join(name.split(".")[-2:])
        report.row(
            f"L={length:<5} {head}: cpu equals torch: RMS ratio {value:.1e} ({where})",
            section="mixer", length=length, rival=head, rms_ratio=value, worst=name,
        )  # fmt: skip
        verdicts.append(
            report.check(f"mixer L={length}: {head}, RMS ratio", value, TOLERANCE, "most")
        )
    return all(verdicts)


def backend_differences(head: Head, length: int, sequences: int) -> dict[str, float]:
    """Return the RMS ratios of the compiled mixer's tensors to those of the torch backend."""
    mixer = HydraMixer(head, length, sequences)
    given = tokens(length, sequences)
    got = forward_backward(mixer, *given)
    mixer.packed = replace(mixer.packed, backend="torch")
    expected = forward_backward(mixer, *given)
    return {name: rms_ratio(got[name], expected[name]) for name in expected}


def _against_attention(report: Report, setting: Setting, length: int) -> None:
    sequences = setting.sequences(length)
    given = tokens(length, sequences)
    mixers = {
        "lean": HydraMixer("lean", length, sequences),
        "full": HydraMixer("full", length, sequences),
        "attention": AttentionMixer(length),
        "lean + GLU": HydraMixer("lean", length, sequences, glu=True),
        "full + GLU": HydraMixer("full", length, sequences, glu=True),
        "attention + GLU": AttentionMixer(length, glu=True),
    }
    runs = {name: partial(forward_backward, mixer, *given) for name, mixer in mixers.items()}
    seconds = alternate(runs, setting.repetitions)
    for name, taken in seconds.items():
        rival = "attention + GLU" if name.endswith("GLU") else "attention"
        timing, ratio = Timing.of(taken), median_ratio(taken, seconds[rival])
        report.row(
            f"L={length:<5} {name:15} {timing!s:>29}  {ratio:5.2f}x attention's",
            section="mixer", length=length, tokens=len(given[0]), dim=DIM, heads=HEADS,
            rival=name, **milliseconds(timing), over_attention=ratio,
        )  # fmt: skip
    _hold_to_bar(report, setting, length, seconds["lean"], seconds["attention"])


def _hold_to_bar(
    report: Report, setting: Setting, length: int, lean: list[float], attention: list[float]
) -> None:
    if length == setting.mixer_lengths[-1]:
        faster = median_ratio(attention, lean)
        report.check(f"mixer L={length}: attention / lean", faster, FAR_FASTER, "least")
        return
    bar = SLOWER if length == setting.mixer_lengths[0] else FASTER
    report.check(f"mixer L={length}: lean / attention", median_ratio(lean, attention), bar, "most")
