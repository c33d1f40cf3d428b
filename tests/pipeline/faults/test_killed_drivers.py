"""SIGKILL of the driver in every stage; then the same command again.

At three touches of the file system in each stage: its first, one in its middle, and the one that
would put its output in place. tests/jobs/test_killed_jobs.py kills drivers of a Ray.
"""

import signal

import pytest

from tests.pipeline.faults.drivers import ALL, SASREC, Driver
from tests.pipeline.faults.fatal_touch import COMMIT, RESULTS

pytestmark = pytest.mark.faults


@pytest.mark.parametrize(
    ("content", "kills"),
    [
        pytest.param(SASREC, 21, id="sasrec"),
        pytest.param(ALL, 54, id="all", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
def test_killed_in_every_stage_the_figures_are_those_of_a_run_that_was_not(
    tmp_path, content, kills
):
    whole, killed = Driver(tmp_path / "whole", content), Driver(tmp_path / "killed", content)
    assert whole.start() == 0
    touches = whole.touches
    results = touches.pop(RESULTS)
    points = [(name, at) for name, n in touches.items() for at in (0, n // 2, COMMIT)]
    points += [(RESULTS, at) for at in (1, results // 2, results - 2)]
    for point in points:
        assert killed.start(point) == -signal.SIGKILL, point
    assert killed.start() == 0
    assert len(points) == kills
    assert killed.metrics == whole.metrics
    assert killed.made == whole.made, "a stage that was finished was made again"
    assert set(killed.made.values()) == {1}
    assert killed.half_made() == []
    assert not (killed.store / ".damaged").exists()
