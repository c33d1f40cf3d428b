"""The ahead-of-time gate: shipped kernels pass it for sm_80 and sm_90, and bad ones do not."""

import dataclasses
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from benchmarks import aot  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
COMPILES = os.environ.get("TRITON_INTERPRET", "0") == "0"


def gate(*options):
    """Run the gate in a process without TRITON_INTERPRET; return its status and its JSON."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.aot", *options],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stdout


@pytest.mark.parametrize(
    "options",
    [(), pytest.param(("--all",), marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
    ids=["usual", "all"],
)
def test_shipped_kernels_pass(options):
    status, report, printed = gate(*options)
    assert [check for check in report["checks"] if not check["ok"]] == [], printed
    assert status == 0
    kernels = {row["variant"].split()[0] for row in report["rows"]}
    assert kernels >= {"conv_forward", "conv_backward", "infonce_forward", "infonce_dquery"}
    assert kernels >= {"scan_forward", "backward_tiles", "backward_items", "group_states"}


def test_the_golden_is_of_the_installed_triton():
    kept = json.loads(aot.GOLDEN.read_text(encoding="utf-8"))
    assert kept["triton"] == triton.__version__, "run python -m benchmarks.aot --update"


@pytest.mark.skipif(not COMPILES, reason="TRITON_INTERPRET is set: nothing compiles")
def test_every_width_of_the_scan_is_shipped():
    shipped = {
        (v.types["X"], v.constants["P"] * v.constants["BLOCKS"], v.constants["N"], architecture)
        for v in aot.variants(["user_model.ops.scan_triton"])
        for architecture in v.architectures
        if v.kernel.__name__ == "scan_forward"
    }
    widths = (16, 32, 64)
    assert shipped == set(product(("*bf16", "*fp32"), widths, widths, aot.ARCHITECTURES))


@triton.jit
def adds(X, N: tl.constexpr):
    tl.atomic_add(X + tl.arange(0, N), 1.0)


@triton.jit
def rounds(X, N: tl.constexpr):
    place = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    x = tl.load(X + place)
    tl.store(X + place, tl.dot(x, x, input_precision="tf32"))


@triton.jit
def crowds(X, N: tl.constexpr):
    place = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    x = tl.load(X + place).to(tl.bfloat16)
    tl.store(X + place, tl.dot(x, tl.load(X + place + N * N).to(tl.bfloat16)))


@triton.jit
def hoards(X, N: tl.constexpr):
    """All of N is needed again after a sum over it: N / 32 registers a thread."""
    x = tl.load(X + tl.arange(0, N))
    tl.store(X + tl.arange(0, N), x / tl.sum(x, 0))


@triton.jit
def doubles(X, N: tl.constexpr):
    place = tl.arange(0, N)
    tl.store(X + place, 2.0 * tl.load(X + place))


def variant(kernel, n, warps=1):
    return aot.Variant(kernel, {"X": "*fp32"}, {"N": n}, warps, 1)


def compiled(kernel, n, architecture=90, **options):
    shipped = variant(kernel, n, **options)
    key = f"{shipped.name} sm_{architecture}"
    return [shipped], {key: aot.compile_variant(shipped, architecture)}


@pytest.mark.skipif(not COMPILES, reason="TRITON_INTERPRET is set: nothing compiles")
@pytest.mark.parametrize(
    ("kernel", "n", "warps", "failed"),
    [
        (adds, 32, 1, {"atomic instructions"}),
        (rounds, 32, 1, {"tf32 instructions"}),
        (crowds, 128, 4, {"wgmma instructions", "largest shared memory, bytes"}),
        (hoards, 1 << 14, 1, {"bytes spilled", "bytes of stack"}),
        (doubles, 32, 1, set()),
    ],
)
def test_bad_kernels_do_not(kernel, n, warps, failed):
    shipped, rows = compiled(kernel, n, warps=warps)
    shipped = [dataclasses.replace(one, architectures=(90,)) for one in shipped]
    checks = aot.checks(shipped, rows, golden=rows)
    assert {check.name for check in checks if not check.ok} == failed


@pytest.mark.skipif(not COMPILES, reason="TRITON_INTERPRET is set: nothing compiles")
def test_another_figure_or_source_than_the_goldens_fails(tmp_path):
    _, rows = compiled(doubles, 32)
    shipped = [dataclasses.replace(variant(doubles, 32), architectures=(90,))]
    aot.write_golden(rows, tmp_path / "golden.json")
    golden = aot.read_golden(tmp_path / "golden.json")
    assert all(check.ok for check in aot.checks(shipped, rows, golden))
    (key,) = golden

    def failing(**change):
        changed = {key: dataclasses.replace(golden[key], **change)}
        return [check.name for check in aot.checks(shipped, rows, changed) if not check.ok]

    more = failing(registers=golden[key].registers + 1)
    assert more == ["variants compiled to something else than the golden's"]
    assert "variants whose source is not the golden's" in failing(fingerprint="another")
    gone = aot.checks([], rows, golden)
    assert [check.name for check in gone if not check.ok] == [
        "variants whose source is not the golden's"
    ]


@pytest.mark.skipif(not COMPILES, reason="TRITON_INTERPRET is set: other functions are jitted")
def test_the_fingerprint_is_of_all_that_is_compiled():
    """Of constants, warps, and the source of the functions that a kernel calls."""
    from user_model.ops import convolution_kernels as kernels

    prints = {variant(doubles, n, warps).fingerprint for n in (16, 32) for warps in (1, 2)}
    assert len(prints) == 4
    trees = aot.sources(kernels.conv_backward)
    for called in ("_dsum", "_sum", "_tap", "_weight"):
        assert any(f"name='{called}'" in tree for tree in trees), called
