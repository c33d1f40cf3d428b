"""Starts workers with torchrun, and compares what they learned."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Killed(Exception):  # noqa: N818
    """A worker killed itself, as its job told it to."""


def torchrun(
    workers: int, base: Path, out: Path, jobs: list[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Reports of all workers by the jobs' names; see zero_worker.py for what a job is."""
    paths = [
        str(HERE),
        str(ROOT / "tests" / "pipeline" / "faults"),
        os.environ.get("PYTHONPATH", ""),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(workers), str(HERE / "zero_worker.py")]
    command += [str(base), str(out), str(workers), json.dumps(jobs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    if done.returncode and any("kill" in job for job in jobs):
        assert "Signal 9 (SIGKILL)" in done.stderr, done.stderr[-4000:]
        raise Killed
    assert done.returncode == 0, done.stderr[-4000:]
    return {
        job["name"]: [
            json.loads((out / f"{workers}-{job['name']}-{r}.json").read_text())
            for r in range(workers)
        ]
        for job in jobs
    }


def losses(reports: list[dict[str, Any]]) -> list[float]:
    """Losses by step, of worker 0."""
    found = {int(step): loss for step, loss in reports[0]["losses"].items()}
    return [found[step] for step in sorted(found)]


def rms_ratio(folder: Path, other: Path) -> float:
    """Root mean square of the difference of two adapters' weights, relative to the first."""
    mine, theirs = (load_file(f / "adapter_model.safetensors") for f in (folder, other))
    assert mine.keys() == theirs.keys()
    first, second = (torch.cat([w[k].flatten() for k in sorted(mine)]) for w in (mine, theirs))
    return ((first - second).square().mean() / first.square().mean()).sqrt().item()


def assert_same_losses(first: list[float], second: list[float], early: int = 6) -> None:
    """Equal but for rounding, which Adam's division then amplifies from step to step."""
    np.testing.assert_allclose(first[:early], second[:early], rtol=2e-5)
    np.testing.assert_allclose(first, second, rtol=5e-3)
