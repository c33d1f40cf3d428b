"""A part of the test suite: `pytest --shard 2/6` runs whole files, about a sixth of the time.

Whole files, since their tests share what is expensive to make. Each goes to the shard that has
least to do so far, the longest first; the times of the long ones were measured, slow tests
included, on two busy cores.
"""

import re
from collections.abc import Collection
from pathlib import Path

import pytest

_USUAL_SECONDS = 6
SECONDS = {
    "pipeline/faults/test_soak.py": 1850,
    "benchmarks/test_pipeline_benchmark.py": 1320,
    "fuzz/test_fuzz.py": 1250,
    "jobs/test_killed_jobs.py": 1120,
    "jobs/test_nodes.py": 1000,
    "pipeline/faults/test_torn_outputs.py": 480,
    "pipeline/faults/test_killed_drivers.py": 460,
    "jobs/test_interrupt.py": 420,
    "aot/test_aot.py": 380,
    "item_llm/test_killed_workers.py": 380,
    "benchmarks/test_prepare_benchmark.py": 290,
    "user_model/test_torn_checkpoints.py": 240,
    "user_model/test_compile.py": 220,
    "jobs/test_refresh_embeddings.py": 220,
    "benchmarks/test_scan_benchmark.py": 220,
    "benchmarks/test_scaling.py": 160,
    "item_llm/test_finetuning.py": 160,
    "jobs/test_evaluate_transfer.py": 150,
    "pipeline/faults/test_disks.py": 140,
    "benchmarks/test_http_benchmark.py": 130,
    "jobs/test_multidomain.py": 110,
    "item_llm/test_bfloat16.py": 100,
    "item_llm/test_resuming.py": 100,
    "item_llm/test_histories.py": 80,
    "item_llm/test_smollm2.py": 70,
    "jobs/test_tune.py": 70,
    "pipeline/sources/test_simulated_marketplace.py": 70,
    "item_llm/test_torn_checkpoints.py": 65,
    "item_llm/test_refresh.py": 60,
    "pipeline/workers/test_local_ray.py": 50,
}


def parsed_shard(text: str) -> tuple[int, int]:
    """(number from 1, how many) of `2/6`."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise pytest.UsageError(f"--shard: got {text!r}, expected NUMBER/COUNT, such as 2/6")
    return int(found[1]), int(found[2])


def files_of_shard(files: Collection[Path], number: int, count: int) -> set[Path]:
    """The files that a shard has; each file is in one of them."""
    to_do, ours = [0] * count, set()
    for file in sorted(set(files), key=lambda file: (-seconds_of(file), file)):
        least = to_do.index(min(to_do))
        to_do[least] += seconds_of(file)
        if least == number - 1:
            ours.add(file)
    return ours


def seconds_of(file: Path) -> int:
    """What a file of the folder tests takes, about."""
    parts = file.parts
    below = parts[len(parts) - parts[::-1].index("tests") :] if "tests" in parts else parts
    return SECONDS.get("/".join(below), _USUAL_SECONDS)
