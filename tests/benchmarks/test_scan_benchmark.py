"""benchmarks.scan compares equals, counts what it says, and its report is whole."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import scan, scan_cases, scan_floors
from benchmarks.mixer_cases import backend_differences, log_log_slope, ragged_lengths
from benchmarks.mixers import DIM, AttentionMixer, HydraMixer, forward_backward, tokens
from benchmarks.peers import PYTHON, PeerWorker, transformers_scan, whole_op
from benchmarks.peers import forward_backward as with_gradients
from benchmarks.projections import projections
from benchmarks.scan_cases import HEADS, STATE, WIDTH, Case, Peer, differences
from benchmarks.scan_floors import Machine
from benchmarks.scan_report import Setting, worst
from pipeline.resident_memory import peak_extra_bytes

MIB = 1 << 20


pytestmark = pytest.mark.usefixtures("one_thread")


def run(capsys, *arguments):
    """Run quickly, in this process: the exit status, the JSON, and what stands before it."""
    status = scan.main(["--quick", "--repetitions", "1", *arguments])
    *lines, last = capsys.readouterr().out.splitlines()
    return status, json.loads(last), lines


def rows(report, section, **having):
    return [r for r in report["rows"] if {"section": section, **having}.items() <= r.items()]


def transformers(case, bare, chunk):
    """What transformers' scan makes of a case, in this process."""
    op = whole_op(transformers_scan, length=case.length, chunk=chunk, turns=case.turns)
    given = {name: value for name, value in case.inputs.items() if not bare or name != "z"}
    return with_gradients(op, given, case.dy)


@pytest.mark.parametrize("bare", [False, True])
def test_the_peer_with_torch_around_it_is_the_whole_op(bare):
    case = Case.make(length=40, sequences=3)
    got, theirs = case.ours(bare, "reference"), transformers(case, bare, chunk=16)
    assert theirs.keys() == {"y", *(f"d{n}" for n in case.inputs if not bare or n != "z")}
    assert worst(differences(theirs, got))[1] < 1e-5


def test_the_worker_runs_the_whole_op_and_the_bare_one():
    case = Case.make(length=10, sequences=3)
    with PeerWorker(threads=1, python=Path(sys.executable)) as worker:
        with pytest.raises(ValueError, match="one of z and turns, expected both"):
            worker.hold(case.inputs, case.dy, length=10)
        worker.hold(case.inputs, case.dy, length=10, turns=case.turns)
        for bare in (False, True):
            got = worker.run("transformers", bare=bare, chunk=8)
            assert ("dz" in got) is not bare
            assert worst(differences(got, transformers(case, bare, chunk=8)))[1] < 1e-6
        assert len(worker.time("transformers", bare=True, chunk=8)) == 1


@pytest.mark.parametrize("head", ["lean", "full"])
def test_the_mixer_is_the_same_on_both_backends(head):
    found = backend_differences(head, length=37, sequences=3)
    assert {"y", "du", "dblock.input.weight", "dblock.interaction.scan.A_log"} <= found.keys()
    assert worst(found)[1] < 1e-5


@pytest.mark.parametrize("make", [lambda: HydraMixer("lean", 6, 2), lambda: AttentionMixer(6)])
def test_mixers_keep_sequences_and_the_past_apart(make):
    mixer, (u, _) = make(), tokens(6, 2)
    changed = u.detach().clone()
    changed[4] += 1.0
    differs = (mixer(u) != mixer(changed)).any(1)
    assert differs.tolist() == [False] * 4 + [True] * 2 + [False] * 6


def test_mixers_are_of_equal_width_and_end_in_the_same_feed_forward():
    hydra, attention = HydraMixer("lean", 6, 2, glu=True), AttentionMixer(6, glu=True)
    same = {"ffn.up.weight", "ffn.down.weight"}
    shapes = {name: p.shape for name, p in attention.named_parameters()}
    for name in same:
        assert hydra.block.get_parameter(name).shape == shapes[name]
    assert shapes["qkv.weight"] == (3 * DIM, DIM)
    assert not any("norm" in name for name, _ in hydra.named_parameters())


def test_projections_are_those_of_the_block():
    """Weights by hand: W_X and W_Z, 4 heads of 32 x (32 + 32 + 1), W_O."""
    found = projections(length=8, sequences=2)
    flop = {name: each.flop for name, each in found.items()}
    weights = {"input": 128 * 256, "interaction.in_projection": 4 * 32 * 65, "output": 128 * 128}
    assert flop == {name: 6 * 16 * count for name, count in weights.items()}
    mixer = HydraMixer("lean", 8, 2)
    gradients = forward_backward(mixer, *tokens(8, 2))
    for name, each in found.items():
        _, dweight = each.run()
        torch.testing.assert_close(dweight, gradients[f"dblock.{name}.weight"])


def test_figures_by_hand():
    lengths = [256, 512, 1024]
    assert log_log_slope(lengths, [3.0 * n**0.25 for n in lengths]) == pytest.approx(0.25)
    assert log_log_slope(lengths, [2.0, 2.0, 2.0]) == pytest.approx(0.0)
    assert worst({"a": 1.0, "b": math.nan, "c": 2.0})[0] == "b"
    assert [Setting().sequences(n) for n in (50, 4000, 16_384)] == [328, 4, 1]


def test_ragged_lengths_hold_the_tokens():
    lengths = ragged_lengths(3000)
    assert 3000 <= lengths.sum() < 3200
    assert lengths.min() >= 1
    assert lengths.max() <= 200


def test_peak_memory_counts_what_was_freed_before_the_end():
    def call():
        # Beyond what the allocator keeps: a mapping of its own, whatever ran before.
        return float(torch.ones(64 * MIB // 4).sum())

    call()
    peak, level = peak_extra_bytes(call)
    assert 60 * MIB < peak < 80 * MIB
    assert level > 64 * MIB


def test_a_difference_is_not_timed(capsys, monkeypatch):
    theirs = Peer.run

    def wrong(self, **how):
        results = theirs(self, **how)
        return results | {"dD": 1.01 * results["dD"]}

    monkeypatch.setattr(Peer, "run", wrong)
    monkeypatch.setattr(scan_cases, "PYTHON", PYTHON / "absent")
    status, report, lines = run(capsys, "--only", "scan")
    assert status == 1
    assert [c["name"] for c in report["checks"]] == [
        f"scan L={length}: transformers, RMS ratio" for length in (8, 40)
    ]
    assert not any("median_ms" in row for row in report["rows"])
    assert sum("not timed" in line for line in lines) == 2


def test_without_mamba_ssm_it_is_left_out_aloud(capsys, monkeypatch):
    monkeypatch.setattr(scan_cases, "PYTHON", PYTHON / "absent")
    _, report, lines = run(capsys, "--only", "scan")
    (skipped,) = rows(report, "scan", rival="mamba-ssm")
    assert "make peers" in skipped["skipped"]
    assert any(skipped["skipped"] in line for line in lines)
    assert all("mamba-ssm" not in check["name"] for check in report["checks"])
    assert {r["rival"] for r in rows(report, "scan") if "median_ms" in r} == {
        "ours",
        "transformers",
        "multiply_adds",
        "traffic",
    }


def test_floors_by_hand():
    """H = 2, P = 4, N = 8: 2 x 4 x 8 elements of the state; 25 inputs, 4 results a head, thrice."""
    machine = Machine(flop=1e3, memory=1e2)
    floors = machine.floors(tokens=10, heads=2, width=4, state=8)
    assert floors.multiply_adds == pytest.approx(10 * 64 * 8 * 2 / 1e3)
    assert floors.traffic == pytest.approx(10 * 4 * 2 * (25 + 4 + 25 + 4 + 25) / 1e2)


def test_traffic_is_that_of_the_tensors():
    case = Case.make(length=10, sequences=3)
    of_tokens = [v for v in case.inputs.values() if len(v) == len(case.dy)]
    inputs, results = sum(v.nbytes for v in of_tokens), case.dy.nbytes
    gradients = sum(v.nbytes for name, v in case.ours(False).items() if name[1:] in case.inputs
                    and len(v) == len(case.dy))  # fmt: skip
    whole = (inputs + results) + (inputs + results + gradients)
    assert scan_floors.traffic_a_token(HEADS, WIDTH, STATE) * len(case.dy) == whole


def test_each_peer_stands_beside_the_floors(capsys):
    _, report, _ = run(capsys, "--only", "scan")
    floors = {(r["length"], r["rival"]): r["median_ms"] for r in rows(report, "scan", form="floor")}
    peers = [r for r in rows(report, "scan") if "over_both" in r]
    assert {peer["length"] for peer in peers} == {length for length, _ in floors} == {8, 40}
    for peer in peers:
        both = [floors[peer["length"], name] for name in ("multiply_adds", "traffic")]
        (timed,) = rows(report, "scan", length=peer["length"], rival=peer["rival"], form="whole",
                        chunk=scan_cases.CHUNKS[0])  # fmt: skip
        assert peer["over_both"] == pytest.approx(timed["median_ms"] / sum(both))
        assert peer["over_greater"] == pytest.approx(timed["median_ms"] / max(both))


def test_every_section_reports(capsys):
    _, report, lines = run(capsys)
    assert (report["benchmark"], report["threads"]) == ("scan", 1)
    assert max(map(len, lines)) <= 80
    checks = {check["name"]: check for check in report["checks"]}
    equalities = [check for name, check in checks.items() if "RMS ratio" in name]
    peers = ["transformers", *(["mamba-ssm"] if PYTHON.exists() else [])]
    assert len(equalities) == 2 * len(peers) + 3 * 2
    assert all(check["ok"] for check in equalities)
    bars = {name: (check["at"], check["bar"]) for name, check in checks.items()}
    expected = {f"scan L={n}: {peer} / ours": ("least", 9.0) for n in (8, 40) for peer in peers}
    expected |= {
        "mixer L=8: lean / attention": ("most", 1.1),
        "mixer L=16: lean / attention": ("most", 1.0),
        "mixer L=128: attention / lean": ("least", 4.0),
        "growth: |log-log slope| of time over L": ("most", 0.05),
        "peak memory: (max - min) / min over L": ("most", 0.1),
        "projections: share of the GEMM peak": ("least", 0.7),
        "padding: share of slots, backend cpu": ("most", 0.03),
    }
    assert {name: bar for name, bar in bars.items() if "RMS ratio" not in name} == expected
    assert len(rows(report, "memory")) == 2
    assert all(row["peak_extra_mib"] > 0 for row in rows(report, "memory"))
    timed = {row["rival"] for row in rows(report, "mixer", length=8) if "median_ms" in row}
    plain = {"lean", "full", "attention"}
    assert timed == plain | {f"{name} + GLU" for name in plain}


# An op of multiply-adds and traffic alone, each at the machine's peak, would be at the bar of 9
# (docs/kernels.md): it is missed here, as the benchmark says. Below these this test fails.
OUT_OF_REACH = {
    f"scan L={length}: {peer} / ours": 5.0
    for length in (1000, 4000)
    for peer in ("mamba-ssm", "transformers")
}


@pytest.mark.slow
@pytest.mark.timed
def test_the_benchmark_meets_its_bars():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scan"], stdout=subprocess.PIPE, text=True
    )
    *table, report = done.stdout.splitlines()
    print(*table, sep="\n")  # to see by how much, where one is missed
    checks = json.loads(report)["checks"]
    missed = {check["name"]: check["value"] for check in checks if not check["ok"]}
    assert done.returncode == bool(missed)
    assert missed.keys() <= OUT_OF_REACH.keys()
    assert all(value >= OUT_OF_REACH[name] for name, value in missed.items()), missed
    if missed:
        pytest.xfail("; ".join(f"{name} {value:.1f}, not 9" for name, value in missed.items()))
