"""A Ray of one's own outlives a SIGTERM that is sent to all processes of a job."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sessions import expect_none_left

ROOT = Path(__file__).resolve().parents[3]
# All of the session but the driver get the signal; then old workers and new ones must answer.
DRIVER = """
import os, signal, subprocess, time
from pipeline.workers.cluster import ComputeConfig, connected

def others():
    listed = subprocess.run(
        ["ps", "-o", "pid=", "-s", str(os.getpid())], capture_output=True, text=True
    ).stdout
    return {int(line) for line in listed.split()} - {os.getpid()}

def signal_others():
    for process in others():
        try:
            os.kill(process, signal.SIGTERM)
        except ProcessLookupError:
            pass  # ps itself

with connected(ComputeConfig()):
    import ray

    @ray.remote
    class Worker:
        def answer(self):
            return os.getpid()

    worker = Worker.remote()
    before = ray.get(worker.answer.remote())
    signal_others()
    time.sleep(1)
    assert ray.get(worker.answer.remote(), timeout=60) == before
    ray.get(Worker.remote().answer.remote(), timeout=60)
    begun = time.monotonic()
print("ended in", time.monotonic() - begun)
print("blocked here", signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""

pytestmark = [pytest.mark.ray, pytest.mark.faults]


@pytest.fixture
def driver():
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def test_its_processes_do_not_heed_sigterm_and_are_gone_at_the_end(driver):
    told, _ = driver.communicate(timeout=240)
    assert driver.returncode == 0, told
    assert "blocked here False" in told
    expect_none_left(driver.pid)
