"""One run of a config, as a user runs it: in one process without a Ray, or submitted to a Ray.

Both are `jobs/multidomain.py` in a process of its own, with an empty run store. Seconds are by the
wall and of the CPU; those of the CPU are of all processes that the way needs, Ray's own too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.json_worker import ROOT
from benchmarks.process_tree import ProcessTree
from pipeline.config import RunConfig
from pipeline.config_command import show
from pipeline.paths import DATA_VARIABLE, HOME_VARIABLE, data_root
from pipeline.report_files import METRICS, RUN
from pipeline.workers.local_ray import LocalRay

JOB = "jobs/multidomain.py"


@dataclass(frozen=True)
class Measured:
    """What a run left and took, in seconds.

    Attributes:
        metrics: metrics.json.
        card: run.json.
        seconds: from nothing to the end of all processes, by the wall.
        cpu_seconds: of all processes.
        start: of the Ray that it is submitted to; 0 where there is none.
        end: of that Ray's ending.
        cpu_by_process: CPU seconds by the processes' names.
    """

    metrics: bytes
    card: dict[str, Any]
    seconds: float
    cpu_seconds: float
    start: float = 0.0
    end: float = 0.0
    cpu_by_process: Counter[str] = field(default_factory=Counter)

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of each stage."""
        return {stage["name"]: stage["made_in_seconds"] for stage in self.card["stages"]}

    @property
    def between(self) -> float:
        """Seconds of the run in which no stage ran: Ray is joined and left."""
        return float(self.card["seconds"]) - sum(self.stages.values())

    @property
    def around(self) -> float:
        """Seconds of the job before and after its run: submitting, importing, the report."""
        return self.seconds - self.start - self.end - float(self.card["seconds"])


class FailedRunError(RuntimeError):
    """A run ended with another status than 0; the message holds the end of what it printed."""


def in_one_process(config: RunConfig, folder: Path) -> Measured:
    """Run a config in one process, without a Ray.

    Args:
        config: with one worker.
        folder: an empty one, for the run and its store.
    """
    command = _command(config, folder, in_process=True)
    with ProcessTree() as processes:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - began
    return _measured(done, folder, seconds, processes)


def in_ray(config: RunConfig, folder: Path) -> Measured:
    """Start a Ray, submit a config to it, and end that Ray.

    Args:
        config: of the run.
        folder: an empty one, for the run and its store.
    """
    command = _command(config, folder, in_process=False)
    variables = {name: _environment()[name] for name in (DATA_VARIABLE, HOME_VARIABLE)}
    with ProcessTree() as processes:
        began = time.monotonic()
        with LocalRay() as ray:
            started = time.monotonic()
            done = ray.submit(
                ["python", *command], working_dir=ROOT, variables=variables, capture=True
            )
            ended = time.monotonic()
        seconds = time.monotonic() - began
    return _measured(
        done, folder, seconds, processes, start=started - began, end=began + seconds - ended
    )


def _command(config: RunConfig, folder: Path, *, in_process: bool) -> list[str]:
    compute = config.compute.model_copy(update={"in_process": in_process})
    store = {"store": str(folder / "store"), "vectors": None}
    file = folder / "config.yaml"
    file.write_text(show(config.model_copy(update={"compute": compute, **store})))
    return [JOB, "--config", str(file), "--run-dir", str(folder / "run")]


def _environment() -> dict[str, str]:
    own = {DATA_VARIABLE: str(data_root()), HOME_VARIABLE: str(ROOT), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


def _measured(
    done: subprocess.CompletedProcess[str],
    folder: Path,
    seconds: float,
    processes: ProcessTree,
    **of_ray: float,
) -> Measured:
    if done.returncode:
        raise FailedRunError(f"a run ended with {done.returncode}: {done.stdout[-2000:]}")
    return Measured(
        metrics=(folder / "run" / METRICS).read_bytes(),
        card=json.loads((folder / "run" / RUN).read_text()),
        seconds=seconds,
        cpu_seconds=processes.total(),
        cpu_by_process=processes.by_name(),
        **of_ray,
    )
