"""Without a device the check claims nothing; its ladder runs in Triton's interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def run(*options, interpret):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", *options],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
@pytest.mark.parametrize(
    ("options", "interpret"), [((), False), (("--device", "cpu"), False), ((), True)]
)
def test_without_a_device_nothing_is_claimed(options, interpret):
    done = run(*options, interpret=interpret)
    assert done.returncode == 2, done.stderr
    (said,) = done.stdout.splitlines()
    assert "nothing was checked, for it needs a CUDA device" in said


def test_the_ladder_holds_in_the_interpreter():
    done = run("--device", "cpu", interpret=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    names = " ".join(check["name"] for check in report["checks"])
    for rung in ("scan aligned", "scan runs", "scan long", "conv", "infonce", "packed differs"):
        assert rung in names
    assert report["rows"] == []
