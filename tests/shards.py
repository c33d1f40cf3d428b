"""A part of the test suite: `pytest --shard 2/6` runs whole files, about a sixth of the time.

Whole files, since their tests share what is expensive to make. `make test-slow` runs a shard's
files in two processes, as `make test` does, and what is marked `timed` after them, alone. The
longest are dealt out first: xdist gives a process its next file before the last two tests of the
one at hand, so what follows a long test waits for it, whatever the other process does. Each file
goes to the shard that it makes longer by least (what needs a Ray costs nothing beside what does
not) and that stays near the mean, the longest first; the times of the long ones were measured, slow
tests included, on two busy cores.
"""

import functools
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.processes import RAY, ROOT, group

_USUAL_SECONDS = 6
_SPARE = 1.1  # a shard may be longer than the mean by this
SECONDS = {
    "pipeline/faults/test_soak.py": 1850,
    "pipeline/test_controls.py": 1800,
    "jobs/test_killed_jobs.py": 1700,
    "benchmarks/test_pipeline_benchmark.py": 1320,
    "jobs/test_nodes.py": 900,
    "fuzz/test_fuzz.py": 640,
    "item_llm/test_killed_workers.py": 520,
    "pipeline/faults/test_torn_outputs.py": 420,
    "jobs/test_interrupt.py": 400,
    "aot/test_aot.py": 380,
    "pipeline/faults/test_killed_drivers.py": 350,
    "user_model/test_torn_checkpoints.py": 340,
    "jobs/test_refresh_embeddings.py": 300,
    "benchmarks/test_prepare_benchmark.py": 290,
    "user_model/test_compile.py": 220,
    "benchmarks/test_scan_benchmark.py": 220,
    "jobs/test_multidomain.py": 210,
    "benchmarks/test_scaling.py": 210,
    "item_llm/test_finetuning.py": 160,
    "jobs/test_evaluate_transfer.py": 140,
    "pipeline/faults/test_disks.py": 130,
    "pipeline/workers/test_launch.py": 120,
    "jobs/test_tune.py": 120,
    "pipeline/serving/test_serve_job.py": 110,
    "benchmarks/test_http_benchmark.py": 110,
    "pipeline/test_memory.py": 110,
    "pipeline/workers/test_local_ray.py": 110,
    "item_llm/test_histories.py": 100,
    "item_llm/test_resuming.py": 100,
    "test_processes.py": 90,
    "item_llm/test_bfloat16.py": 80,
    "item_llm/test_smollm2.py": 70,
    "item_llm/test_torn_checkpoints.py": 70,
    "pipeline/sources/test_simulated_marketplace.py": 70,
    "item_llm/test_refresh.py": 60,
    "pipeline/workers/test_encode.py": 60,
    "pipeline/test_metrics_peer.py": 45,
    "jobs/test_study.py": 45,
    "item_llm/test_cache_faults.py": 45,
}


def parsed_shard(text: str) -> tuple[int, int]:
    """(number from 1, how many) of `2/6`."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise pytest.UsageError(f"--shard: got {text!r}, expected NUMBER/COUNT, such as 2/6")
    return int(found[1]), int(found[2])


@dataclass(frozen=True)
class Load:
    """What a shard has to do, in seconds."""

    ray: int = 0
    others: int = 0
    longest: int = 0
    timed: int = 0

    def with_file(self, file: Path) -> "Load":
        seconds = seconds_of(file)
        if "mark.timed" in file.read_text(encoding="utf-8"):
            return replace(self, timed=self.timed + seconds)
        if _group_of(file) == RAY:
            return replace(self, ray=self.ray + seconds)
        longest = max(self.longest, seconds)
        return replace(self, others=self.others + seconds, longest=longest)

    @property
    def work(self) -> int:
        return self.ray + self.others + self.timed

    @property
    def duration(self) -> float:
        """By two processes, one of which has all that need a Ray."""
        return self.timed + max(self.ray, self.longest, (self.ray + self.others) / 2)


def shards(files: Collection[Path], count: int) -> tuple[list[set[Path]], list[Load]]:
    """The files of each shard, and what it has to do; each file is in one of them."""
    parts: list[set[Path]] = [set() for _ in range(count)]
    loads = [Load()] * count
    by_time = sorted(set(files), key=lambda file: (-seconds_of(file), file))
    whole = functools.reduce(Load.with_file, by_time, Load())
    mean = (whole.work + whole.timed) / 2 / count
    most = max(_SPARE * mean, *map(seconds_of, by_time)) if by_time else 0
    for file in by_time:
        after = [load.with_file(file) for load in loads]
        growth = [new.duration - old.duration for old, new in zip(loads, after, strict=True)]
        best = min(
            range(count),
            key=lambda n: (max(after[n].duration, most), growth[n], after[n].duration),
        )
        parts[best].add(file)
        loads[best] = after[best]
    return parts, loads


def dealing_order(files: Collection[Path]) -> dict[Path, tuple[int, str]]:
    """By what to sort files: what is dealt out as one stays together, the longest first."""
    groups = {file: _group_of(file) for file in files}
    seconds: Counter[str] = Counter()
    for file, name in groups.items():
        seconds[name] += seconds_of(file)
    return {file: (-seconds[name], name) for file, name in groups.items()}


def _group_of(file: Path) -> str:
    return group(str(file.relative_to(ROOT)))


def seconds_of(file: Path) -> int:
    """What a file of the folder tests takes, about."""
    parts = file.parts
    below = parts[len(parts) - parts[::-1].index("tests") :] if "tests" in parts else parts
    return SECONDS.get("/".join(below), _USUAL_SECONDS)
