"""The two sides of benchmarks.infonce are the same loss; its report is whole."""

import json
import subprocess
import sys

import pytest

from benchmarks.infonce import TOLERANCE, Problem, differences


@pytest.mark.parametrize("positions", [256, 200])
def test_both_sides_are_the_same_loss(positions):
    problem = Problem.make(positions, items=300)
    # Few items, so that the collisions with the positives count.
    collisions = problem.negative.repeat_interleave(128, 0)[:positions] == problem.positive[:, None]
    assert collisions.any(1).sum() > positions / 2
    assert max(differences(problem).values()) < TOLERANCE


@pytest.mark.slow
@pytest.mark.timed
def test_the_benchmark_meets_its_bars():
    command = [sys.executable, "-m", "benchmarks.infonce", "--repetitions", "5"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout.splitlines()[-1])
    assert [row["form"] for row in report["rows"]] == ["tiled", "gathered"]
    assert (done.returncode, all(check["ok"] for check in report["checks"])) == (0, True)
