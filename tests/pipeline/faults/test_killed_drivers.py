"""SIGKILL of the driver in every stage; then the same command again.

At three touches of the file system in each stage: its first, one in its middle, and the one that
would put its output in place. tests/jobs/test_killed_jobs.py kills drivers of a Ray.
"""

import getpass
import signal
import socket
import statistics

import pytest

from tests.pipeline.faults.drivers import ALL, SASREC, Driver
from tests.pipeline.faults.fatal_touch import COMMIT, RESULTS

pytestmark = pytest.mark.faults


def slow(*values):
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


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
    again = statistics.median(killed.seconds[1:])
    print(f"{kills} kills; from a start to the next kill {again:.1f} s in the median")


TRAINING = ALL["item_llm"]["finetuning"] | {"checkpoint_every": 50}
LATE = ALL | {
    "models": ["hydra_single"],
    "domains": ALL["domains"][:1],
    "item_llm": ALL["item_llm"] | {"finetuning": TRAINING},
}


@pytest.mark.parametrize("number", [signal.SIGTERM, *slow(signal.SIGINT)])
def test_told_to_stop_a_training_writes_a_checkpoint_first(tmp_path, number):
    """Preemption: by its own count the training would write its only checkpoint at the end."""
    driver = Driver(tmp_path / "stopped", LATE)
    assert driver.start(stop_at=(3, number)) == 128 + number
    (curve,) = driver.store.glob(".work/item_llm-*/.scratch/checkpoints/steps.jsonl")
    (checkpoint,) = curve.parent.glob("step-*")
    assert int(checkpoint.name.removeprefix("step-")) == len(curve.read_text().splitlines()) - 1
    assert "Give the same command again to go on" in driver.log.read_text()
    assert driver.start() == 0
    assert "item_llm: resumed" in driver.log.read_text()
    whole = Driver(tmp_path / "whole", LATE)
    assert whole.start() == 0
    assert driver.metrics == whole.metrics


def test_the_second_of_two_jobs_with_one_name_is_refused_with_the_owners_name(tmp_path):
    first = Driver(tmp_path / "first", SASREC)
    second = Driver(tmp_path / "second", SASREC)
    second.arguments[-1] = str(first.run_dir)
    with first.paused(("train.sasrec.books", 5)) as owner:
        assert second.start() == 2
        sentence, _ = second.last_words
        assert sentence == (
            f"error: {first.run_dir} is in use by process {owner} of "
            f"{getpass.getuser()} on {socket.gethostname()}"
        )
        assert not second.store.exists()
    assert second.start() == 0, "the lock ends with its owner, also one that was killed"
