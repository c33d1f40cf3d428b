"""Seeds through every target, and Atheris from them: seconds here, minutes in `make test-slow`."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.faults
HERE = Path(__file__).parent
SEEDS = sorted((HERE / "corpus").glob("*/*"))


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_seed_is_read_or_refused(seed):
    TARGETS[seed.parent.name](seed.read_bytes())


def test_the_seeds_are_small_and_every_target_has_some():
    assert {seed.parent.name for seed in SEEDS} == TARGETS.keys()
    assert sum(seed.stat().st_size for seed in SEEDS) < 10_000


def fuzz(target, seconds):
    """Inputs that were tried without a crash."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs Atheris: pip install 'hydrarec[fuzz]'")
    command = [sys.executable, "-m", "tests.fuzz.fuzz", target, f"-max_total_time={seconds}"]
    # A child of a shell: a direct one would count this process's own memory among its peaks, and
    # libFuzzer its limit by them.
    done = subprocess.run(
        ["sh", "-c", '"$@"; exit $?', "sh", *command],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return int(re.search(r"Done (\d+) runs", done.stderr)[1])


def test_new_inputs_are_read_or_refused():
    assert fuzz("jsonl", 3) > 20


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("target", TARGETS)
def test_minutes_of_new_inputs_are_read_or_refused(target):
    assert fuzz(target, 150) > 2000
