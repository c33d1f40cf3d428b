"""One process for a long time: runs, refreshes and ranking again and again, and nothing grows."""

import ctypes
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.pipeline.faults.drivers import SASREC, START

pytestmark = pytest.mark.faults
WIDTH = 16
MOST_MB = 64.0  # that memory may differ by between the first third and the end
M_ARENA_MAX = -8  # of glibc's malloc.h
WATCHED = ("mb", "files", "disk_mb")


class Stub:
    """An encoder of random vectors."""

    fingerprint = "a" * 64

    def encode(self, texts):
        seeds = (int.from_bytes(text.encode()[-8:], "little") for text in texts)
        rows = [np.random.default_rng(seed).standard_normal(WIDTH) for seed in seeds]
        return np.array(rows, dtype=np.float32)


def soak(folder, seconds):
    """Work for so many seconds; a line of figures after each round."""
    from jobs import multidomain

    # One arena: what is measured is what is held, not the gaps that malloc leaves in each thread's.
    assert ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1) == 1
    sys.stdout = sys.stderr = (folder / "log").open("w")
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        number += 1
        run_anew(multidomain, folder, number)
        refresh(folder, number)
        figures = {"round": number, "seconds": time.monotonic(), **measured(folder)}
        with (folder / "rounds.jsonl").open("a") as stream:
            stream.write(json.dumps(figures) + "\n")


def run_anew(multidomain, folder, number):
    """A run with another seed, into the same folder: trained, ranked, reported."""
    content = SASREC | {"seed": number, "store": str(folder / "store")}
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    arguments = ["--config", str(folder / "run.yaml"), "--run-dir", str(folder / "run")]
    assert multidomain.main(arguments) == 0
    shutil.rmtree(folder / "store")


def refresh(folder, number):
    """Each round a tenth of 500 texts is new; old versions go, as `--gc` has it."""
    from item_llm.cache import EmbeddingCache
    from item_llm.text_keys import keys_of

    texts = [f"item {i} of {max(0, number - (i + number) % 10)}" for i in range(500)]
    cache = EmbeddingCache.open(folder / "vectors", Stub.fingerprint, WIDTH)
    cache.refresh(texts, Stub())
    cache.keep_only(keys_of(Stub.fingerprint, texts))
    cache.drop_old_versions()
    snapshot = cache.snapshot(texts, folder / "snapshot")
    np.testing.assert_array_equal(snapshot.vectors, Stub().encode(texts))


def measured(folder):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name != "log")
    return {
        "mb": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "files": len(os.listdir("/proc/self/fd")),
        "disk_mb": size / 2**20,
    }


@pytest.mark.parametrize(
    "seconds",
    [20, pytest.param(1800, marks=[pytest.mark.slow, pytest.mark.timeout(2400)])],
)
def test_nothing_grows_however_long_it_runs(tmp_path, seconds):
    process = START.Process(target=soak, args=(tmp_path, seconds))
    process.start()
    process.join()
    assert process.exitcode == 0, (tmp_path / "log").read_text()[-3000:]
    rounds = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert len(rounds) >= 3, "too slow to tell anything"
    later = rounds[len(rounds) // 3 :]
    minutes = np.array([one["seconds"] for one in later]) / 60
    growth = {name: later[-1][name] - later[0][name] for name in WATCHED}
    for name in WATCHED:
        values = np.array([one[name] for one in later])
        slope = np.polyfit(minutes, values, 1)[0] if len(later) > 1 else 0.0
        print(f"{name}: {values[0]:.1f} to {values[-1]:.1f} ({slope:+.3f} a minute)")
    print(f"{len(rounds)} rounds")
    assert growth["files"] <= 0
    assert growth["mb"] < MOST_MB
    assert growth["disk_mb"] < 1 + 16  # two tracking files of 8 MB at most
