"""A Ray of one's own starts on a machine that has no time for it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.workers.local_ray import LocalRay

# Longer than the 30 s after which `ray start` gives up if nothing else is said.
STOPPED_SECONDS = 40.0


def raylets() -> set[int]:
    return {
        int(process.parent.name)
        for process in Path("/proc").glob("[0-9]*/comm")
        if _name(process) == "raylet"
    }


def _name(process: Path) -> str:
    try:
        return process.read_text().strip()
    except OSError:  # ended in between
        return ""


@pytest.fixture
def stops_the_next_raylet() -> Iterator[Callable[[], list[int]]]:
    """A thread that holds a raylet as soon as it is there; called: which one it held."""
    others, held, over = raylets(), [], threading.Event()

    def hold() -> None:
        while not (new := raylets() - others):
            if over.wait(0.01):
                return
        for process in new:
            os.kill(process, signal.SIGSTOP)
            held.append(process)
        over.wait(STOPPED_SECONDS)
        for process in held:
            os.kill(process, signal.SIGCONT)

    thread = threading.Thread(target=hold)
    thread.start()
    yield lambda: held
    over.set()
    thread.join()


@pytest.mark.slow  # 50 s
def test_a_node_that_needs_longer_than_ray_waits_by_default_is_waited_for(
    stops_the_next_raylet: Callable[[], list[int]],
) -> None:
    began = time.monotonic()
    with LocalRay():
        assert stops_the_next_raylet()
        assert time.monotonic() - began > STOPPED_SECONDS


@pytest.mark.slow  # 50 s
def test_a_node_whose_agent_is_too_slow_for_its_raylet_is_started_again() -> None:
    held, over = [], threading.Event()
    ray = LocalRay()
    folder = str(ray._folder)

    def hold() -> None:
        while not held and not over.wait(0.01):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                words = _name(process).split("\0")  # a raylet's own hold its agent's, in one
                if any(w.endswith("dashboard/agent.py") for w in words) and folder in str(words):
                    held.append(int(process.parent.name))
                    os.kill(held[0], signal.SIGSTOP)
                    over.wait(20.0)
                    os.kill(held[0], signal.SIGCONT)
                    return

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        with ray:
            assert held, "no agent was held"
            sessions = sorted(path.name for path in ray._folder.glob("r?"))
            assert sessions == ["r0", "r1"], "the first start gave up, the second did not"
            assert ray.submit(["true"], working_dir=Path(__file__).parent).returncode == 0
    finally:
        over.set()
        thread.join()
