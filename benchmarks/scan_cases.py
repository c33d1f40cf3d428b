"""The scan against mamba-ssm's torch reference and transformers' fallback, on a CPU.

Each side computes the same op, y * RoPE(z) with softplus(dt + dt_bias) and D, and the gradient of
every input; the peers' scans have softplus, RoPE and product around them in torch. "bare" is y
alone, without z. Equality first: what differs is not timed.

Each peer has a process of its own, and its own clock in it: what one frees, the allocator's trim of
it included, is paid by nobody else. The peers' time depends on the chunk that they are called with.
CHUNKS holds two: bars are held against the first; the second is printed beside it.

`scan_floors` says what the machine's arithmetic and its memory allow; how much faster than a peer
an op would be that took the greater of both, or both in turn, stands beside each peer.

Shapes: T tokens, S sequences, L tokens a sequence, H heads, P head width, N state.
"""

import contextlib
import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.harness import Timing, alternate, median_ratio, rms_ratio
from benchmarks.peers import PYTHON, PeerWorker, forward_backward
from benchmarks.scan_floors import Machine
from benchmarks.scan_report import Report, Setting, milliseconds, worst
from user_model.ops import Plan, hydra_scan, plan
from user_model.ops.rotary import turns_at

HEADS, WIDTH, STATE = 4, 32, 32
CHUNKS = (64, 32)
MAMBA, TRANSFORMERS = "mamba-ssm", "transformers"
BAR = 9.0
TOLERANCE = 1e-4
Results = dict[str, Tensor]


class Side(NamedTuple):
    """One that is timed: who, by which chunk (ours: 0), and whether without z."""

    rival: str
    chunk: int
    bare: bool


class Peer(NamedTuple):
    """A process that runs a peer's scan, and the name that the scan has there."""

    worker: PeerWorker
    scan: str

    def run(self, *, bare: bool, chunk: int) -> Results:
        """Return what it makes of the batch that it holds."""
        return self.worker.run(self.scan, bare=bare, chunk=chunk)

    def seconds(self, *, bare: bool, chunk: int) -> float:
        """Return the seconds that this took, by its own clock."""
        return self.worker.time(self.scan, bare=bare, chunk=chunk)[0]


@dataclass(frozen=True)
class Case:
    """One batch of sequences of equal length, as the peers need it.

    Attributes:
        length: L.
        inputs: of `hydra_scan`: x, dt, A, B, C, D, dt_bias, z.
        dy: [T, H, P], the cotangent of the result.
        turns: [L, P / 2, 2], RoPE's cosine and sine at each position.
        plan: of the batch.
    """

    length: int
    inputs: dict[str, Tensor]
    dy: Tensor
    turns: Tensor
    plan: Plan

    @classmethod
    def make(cls, length: int, sequences: int) -> "Case":
        """Draw a batch whose decays mamba-ssm's gradients bear: below e^-88 in 4,000 tokens."""
        generator = torch.Generator().manual_seed(0)
        T, H, P, N = sequences * length, HEADS, WIDTH, STATE

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        inputs = {
            "x": normal(T, H, P),
            "dt": normal(T, H),
            "A": -1 - 0.5 * torch.rand(H, generator=generator),
            "B": normal(T, H, N) / math.sqrt(N),
            "C": normal(T, H, N),
            "D": normal(H),
            "dt_bias": 0.5 * torch.rand(H, generator=generator) - 5.75,
            "z": normal(T, H, P),
        }
        turns = torch.view_as_real(turns_at(torch.arange(length), P, double=False))
        seams = torch.arange(sequences + 1) * length
        return cls(length, inputs, normal(T, H, P), turns, plan(seams))

    def ours(self, bare: bool, backend: str = "cpu") -> Results:
        """Return our result and the gradient of every input."""

        def op(
            x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, dt_bias: Tensor,
            z: Tensor | None = None,
        ) -> Tensor:  # fmt: skip
            return hydra_scan(
                x, dt, A, B, C, D, z, self.plan.cu_seqlens,
                dt_bias=dt_bias, plan=self.plan, backend=backend,
            )  # fmt: skip

        return forward_backward(op, self._given(bare), self.dy)

    def _given(self, bare: bool) -> dict[str, Tensor]:
        return {name: value for name, value in self.inputs.items() if not bare or name != "z"}


def scan_section(report: Report, setting: Setting) -> None:
    """Compare with each peer at each length."""
    report.title(f"Scan, forward + backward: H={HEADS} P={WIDTH} N={STATE}, float32")
    report.note(f"whole: y * RoPE(z); bare: y. Bars: whole, chunk {CHUNKS[0]}.")
    machine = Machine.measured(setting)
    report.row(
        f"the machine at best: {machine.flop / 1e9:.1f} GFLOP/s in float32 products, "
        f"{machine.memory / 1e9:.1f} GB/s",
        section="scan", gflop_a_second=machine.flop / 1e9, gb_a_second=machine.memory / 1e9,
    )  # fmt: skip
    here = Path(sys.executable)
    with contextlib.ExitStack() as stack:
        peers = {TRANSFORMERS: Peer(PeerWorker(setting.threads, here), "transformers")}
        if PYTHON.exists():
            peers = {MAMBA: Peer(PeerWorker(setting.threads), "mamba_chunk")} | peers
        else:
            why = f"no .venv-peers, so {MAMBA} was left out; run: make peers"
            report.row(why, section="scan", rival=MAMBA, skipped=why)
        for peer in peers.values():
            stack.enter_context(peer.worker)
        for length in setting.scan_lengths:
            case = Case.make(length, setting.sequences(length))
            for peer in peers.values():
                peer.worker.hold(case.inputs, case.dy, length=length, turns=case.turns)
            _compare(report, setting, case, peers, machine)


def differences(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the RMS ratio of the result and of each gradient."""
    assert got.keys() == expected.keys()
    return {name: rms_ratio(got[name], expected[name]) for name in expected}


def _compare(
    report: Report, setting: Setting, case: Case, peers: Mapping[str, Peer], machine: Machine
) -> None:
    L = case.length
    if not all([_equal(report, case, rival, peer.run) for rival, peer in peers.items()]):
        report.note(f"L={L}: not timed, for the results differ")
        return
    seconds = _seconds(setting, case, peers)
    _timed_rows(report, case, seconds)
    ours = seconds[Side("ours", 0, False)]
    theirs = {rival: seconds[Side(rival, CHUNKS[0], False)] for rival in peers}
    _floor_rows(report, case, machine, ours, theirs)
    for rival, runs in theirs.items():
        report.check(f"scan L={L}: {rival} / ours", median_ratio(runs, ours), BAR, "least")


def _timed_rows(report: Report, case: Case, seconds: Mapping[Side, Sequence[float]]) -> None:
    """Report the time of each side, and how often ours goes into it."""
    L = case.length
    for side, runs in seconds.items():
        against = median_ratio(runs, seconds[Side("ours", 0, side.bare)])
        form, timing = "bare" if side.bare else "whole", Timing.of(runs)
        chunk = f"chunk {side.chunk}" if side.chunk else ""
        report.row(
            f"L={L:<5} {side.rival:12} {form:5} {chunk:8} {timing!s:>29} {against:6.2f}x",
            section="scan", length=L, tokens=len(case.dy), heads=HEADS, width=WIDTH, state=STATE,
            rival=side.rival, form=form, chunk=side.chunk or None, **milliseconds(timing),
            over_ours=against,
        )  # fmt: skip


def _floor_rows(
    report: Report,
    case: Case,
    machine: Machine,
    ours: Sequence[float],
    theirs: Mapping[str, Sequence[float]],
) -> None:
    """Report what the machine allows: beside our time, and how often it goes into each peer's."""
    L, tokens = case.length, len(case.dy)
    floors = machine.floors(tokens=tokens, heads=HEADS, width=WIDTH, state=STATE)
    for name, floor in floors._asdict().items():
        report.row(
            f"L={L:<5} floor        {name.replace('_', '-')} alone: {1e3 * floor:.1f} ms, "
            f"{floor / Timing.of(ours).median:.0%} of ours",
            section="scan", length=L, rival=name, form="floor", median_ms=1e3 * floor,
        )  # fmt: skip
    for rival, runs in theirs.items():
        median = Timing.of(runs).median
        both, greater = median / sum(floors), median / max(floors)
        report.row(
            f"L={L:<5} {rival:12} over both floors {both:.1f}x, over the greater {greater:.1f}x",
            section="scan", length=L, rival=rival, over_both=both, over_greater=greater,
        )  # fmt: skip


def _equal(report: Report, case: Case, rival: str, run: Callable[..., Results]) -> bool:
    ratios: dict[str, float] = {}
    for form, bare in (("whole", False), ("bare", True)):
        ours = case.ours(bare)
        for chunk in CHUNKS:
            found = differences(run(bare=bare, chunk=chunk), ours)
            ratios |= {f"{name}, {form}, chunk {chunk}": ratio for name, ratio in found.items()}
    where, value = worst(ratios)
    report.row(
        f"L={case.length:<5} {rival:12} equal: RMS ratio {value:.1e} ({where})",
        section="scan", length=case.length, rival=rival, rms_ratio=value, worst=where,
    )  # fmt: skip
    return report.check(f"scan L={case.length}: {rival}, RMS ratio", value, TOLERANCE, "most")


def _seconds(setting: Setting, case: Case, peers: Mapping[str, Peer]) -> dict[Side, list[float]]:
    """Time all sides in turn, each by the clock of its own process."""
    rivals: dict[Side, Callable[[], object]] = {}
    clocked: dict[Side, list[float]] = {}

    def ask(side: Side) -> None:
        taken = peers[side.rival].seconds(chunk=side.chunk, bare=side.bare)
        clocked.setdefault(side, []).append(taken)

    for bare in (False, True):
        rivals[Side("ours", 0, bare)] = partial(case.ours, bare)
        for chunk, rival in itertools.product(CHUNKS, peers):
            side = Side(rival, chunk, bare)
            rivals[side] = partial(ask, side)
    seconds = alternate({str(side): run for side, run in rivals.items()}, setting.repetitions)
    # The worker's own clock leaves out what asking costs; its first run was the warm-up.
    return {side: clocked[side][1:] if side in clocked else seconds[str(side)] for side in rivals}
