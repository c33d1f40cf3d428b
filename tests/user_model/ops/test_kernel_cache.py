"""The cache of compiled kernels: kept between processes until a file they are made of changes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import user_model
from user_model.ops import kernel_cache

PROGRAM = """
import torch
from user_model.ops import elementwise_cpu_kernels as kernels, swiglu
swiglu(torch.ones(3, 8), backend="cpu")
stats = kernels.swiglu_forward.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def copy_of_the_package(folder):
    shutil.copytree(
        Path(user_model.__file__).parent,
        folder / "user_model",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return folder


def hits_and_misses(folder, cache):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=environment, text=True,
        capture_output=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tuple(map(int, done.stdout.split()))


def test_kept_for_all_copies_until_a_file_that_is_called_changes(tmp_path):
    first, second = (copy_of_the_package(tmp_path / name) for name in ("first", "second"))
    cache = tmp_path / "cache"
    assert hits_and_misses(first, cache) == (0, 1)
    assert hits_and_misses(second, cache) == (1, 0)
    called = second / "user_model" / "ops" / "lanes.py"
    called.write_text(called.read_text() + "\n# changed\n")
    assert hits_and_misses(second, cache) == (0, 1)
    assert hits_and_misses(first, cache) == (1, 0)


def test_every_file_that_makes_kernels_decides_the_folder(tmp_path, monkeypatch):
    folder = copy_of_the_package(tmp_path) / "user_model" / "ops"
    monkeypatch.setattr(kernel_cache, "__file__", str(folder / "kernel_cache.py"))
    makers = [file for file in folder.glob("*.py") if "@kernel" in file.read_text()]
    assert len(makers) > 4
    seen = {kernel_cache.sources.__wrapped__()}
    for file in makers:
        file.write_text(file.read_text() + "\n# changed\n")
        seen.add(kernel_cache.sources.__wrapped__())
    assert len(seen) == len(makers) + 1
