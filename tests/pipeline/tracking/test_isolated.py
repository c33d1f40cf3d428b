"""A tracker in its process: what it is told, and that no way of failing reaches the run."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.tracking.isolated import IsolatedTracker
from pipeline.tracking.records import Figures, Record, TrackedRun
from pipeline.tracking.registry import External


class Followed:
    """One isolated tracker of odd_trackers.py, and what it warned of."""

    def __init__(self, folder, kind, queue_records=1000, **settings):
        self.warnings = []
        self.folder = folder
        external = External(kind.lower(), f"odd_trackers:{kind}", "json", settings)
        self.tracker = IsolatedTracker(
            external, queue_records=queue_records, grace=0.5, warn=self.warnings.append
        )
        self.tracker.start(TrackedRun("shop", folder, {"seed": "7"}))

    def log(self, steps):
        for step in steps:
            record = Record("train.sasrec", Figures({"ndcg@10": 0.5}, step, step), 1.0)
            self.tracker.log(record)

    def end(self, seconds):
        self.tracker.finish("finished", {"adapter": "abc"})
        return self.tracker.wait(time.monotonic() + seconds)

    @property
    def told(self):
        return (self.folder / "told").read_text().splitlines()


@pytest.fixture
def follow(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return lambda *args, **settings: Followed(tmp_path / "run", *args, **settings)


@pytest.mark.parametrize("kind", ["Good", "Chatty"])
def test_a_tracker_is_told_everything_in_order(follow, kind):
    followed = follow(kind)
    followed.log([1, 2])
    outcome = followed.end(60)
    assert followed.told == [
        "start shop 7",
        "log {'train.sasrec/ndcg_at_10': 0.5} 1 1",
        "log {'train.sasrec/ndcg_at_10': 0.5} 2 2",
        "finish finished {'adapter': 'abc'}",
    ]
    assert outcome == {
        **{"sent": 4, "failed": 0, "lost": 0, "dropped": 0},
        **{"error": None, "ended": False},
    }
    assert followed.warnings == []


@pytest.mark.parametrize(("at", "failed"), [("start", 5), ("log", 4)])
def test_one_that_raises_at_each_call_is_counted_and_said_once(follow, at, failed):
    followed = follow("Raising", at=at)
    followed.log([1, 2, 3])
    outcome = followed.end(60)
    assert outcome["failed"] == failed
    assert outcome["error"] == "ConnectionError: no route to host"
    assert not outcome["ended"]
    assert len(followed.warnings) == 1
    assert "tracking by raising: ConnectionError: no route to host" in followed.warnings[0]


def test_one_that_blocks_for_ever_is_ended_in_time(follow):
    followed = follow("Blocking")
    followed.log(range(1, 51))
    pid_file = followed.folder / "pid"
    deadline = time.monotonic() + 60
    while not pid_file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = int(pid_file.read_text())
    started = time.monotonic()
    outcome = followed.end(1.0)
    assert time.monotonic() - started < 3
    assert outcome["ended"]
    assert outcome["sent"] == 52
    assert outcome["lost"] == 51, "all but the start"
    assert len(followed.warnings) == 1
    assert "did not finish in time" in followed.warnings[0]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_full_queue_drops_records_without_waiting(follow):
    followed = follow("Blocking", queue_records=5)
    started = time.monotonic()
    followed.log(range(1, 100_001))  # more than the queue and the pipe between the two take
    assert time.monotonic() - started < 60  # who waited would wait for ever
    outcome = followed.end(0.5)
    assert outcome["dropped"] > 90_000
    assert outcome["sent"] + outcome["dropped"] == 100_002
    assert len(followed.warnings) == 1
    assert "5 records wait, and more are dropped" in followed.warnings[0]


def test_a_slow_one_gets_its_time_at_the_end(follow):
    followed = follow("Slow")
    followed.log(range(1, 6))
    outcome = followed.end(60)
    assert len(followed.told) == 7
    assert outcome["lost"] == 0


def test_one_whose_process_dies_is_noticed(follow):
    followed = follow("Crashing")
    followed.log([1, 2])
    outcome = followed.end(60)
    assert outcome["lost"] == 3
    assert len(followed.warnings) == 1
    assert "its process ended early" in followed.warnings[0]


def test_a_class_that_is_not_there_is_an_error_like_others(follow):
    followed = follow("Absent")
    outcome = followed.end(60)
    assert "Absent" in outcome["error"]
    assert len(followed.warnings) == 1


def test_its_process_ends_with_the_runs_even_if_it_is_blocked(follow, tmp_path):
    script = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_isolated import Followed\n"
        "followed = Followed(Path(sys.argv[2]), 'Blocking')\n"
        "followed.log([1])\n"
        "while not (followed.folder / 'pid').exists(): time.sleep(0.05)\n"
    )
    folder = tmp_path / "orphan"
    subprocess.run([sys.executable, "-c", script, Path(__file__).parent, folder], check=True)
    pid = int((folder / "pid").read_text())
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
