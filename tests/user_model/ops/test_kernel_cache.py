"""The cache of compiled kernels: kept between processes until a file they are made of changes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import user_model

PROGRAM = """
import torch
from user_model.ops import elementwise_cpu_kernels as kernels, swiglu
swiglu(torch.ones(3, 8), backend="cpu")
stats = kernels.swiglu_forward.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


@pytest.fixture
def copied(tmp_path):
    shutil.copytree(
        Path(user_model.__file__).parent,
        tmp_path / "user_model",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path


def hits_and_misses(folder):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=environment, text=True,
        capture_output=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tuple(map(int, done.stdout.split()))


def test_kept_until_a_file_that_is_called_changes(copied):
    assert hits_and_misses(copied) == (0, 1)
    assert hits_and_misses(copied) == (1, 0)
    called = copied / "user_model" / "ops" / "lanes.py"
    called.write_text(called.read_text() + "\n# changed\n")
    assert hits_and_misses(copied) == (0, 1)
