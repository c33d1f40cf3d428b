"""A Ray of several nodes on one machine: a head, and worker nodes that share no folder with it."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pipeline.workers.local_ray import LocalRay, _free_ports, _ray
from tests.sessions import processes_of

# A raylet ends itself where its agent names no port within 15 s, which no setting changes and a
# slow machine may need; `ray start` waits on for it. Who runs nodes starts such a one again.
_ATTEMPTS, _ATTEMPT_SECONDS = 3, 60


class Node:
    """A worker node: a raylet with its own loopback address and its own mirror folder.

    Args:
        ray: the head.
        number: makes its address: 127.0.0.(1 + number).
        folder: below which its mirror and its log stand.
        slots: what Ray's scheduler may hand out there; slots, not cores.
        variables: environment of its workers.
    """

    def __init__(
        self, ray: LocalRay, number: int, folder: Path, slots: int, variables: Mapping[str, str]
    ) -> None:
        self.mirror, self._log = folder / f"node-{number}", folder / f"node-{number}.log"
        # Of its own too: nodes that unpack a job's working directory in one place remove each
        # other's. Short, since sockets lie in it.
        self.sessions = Path(tempfile.mkdtemp(prefix="hydrarec-node-"))
        grpc, http, metrics, agent = _free_ports(4)
        command = [
            *(_ray(), "start", "--block", "--disable-usage-stats", "--address", ray.address),
            *("--node-ip-address", f"127.0.0.{1 + number}", "--num-cpus", str(slots)),
            *("--dashboard-agent-grpc-port", str(grpc), "--dashboard-agent-listen-port", str(http)),
            *("--metrics-export-port", str(metrics), "--runtime-env-agent-port", str(agent)),
            *("--object-store-memory", str(150 * 2**20), "--temp-dir", str(self.sessions)),
        ]
        environment = ray.environment | dict(variables) | {"HYDRAREC_CACHE": str(self.mirror)}
        environment["RAY_raylet_start_wait_time_s"] = str(_ATTEMPT_SECONDS)
        for _ in range(_ATTEMPTS):
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            if self._started():
                return
        raise RuntimeError(self._log.read_text(errors="replace")[-2000:])

    def _started(self) -> bool:
        while self._process.poll() is None:
            if "Ray runtime started" in self._log.read_text(errors="replace"):
                return True
            time.sleep(0.2)
        return False

    def stop(self) -> None:
        """End it as a machine that is given back."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
        shutil.rmtree(self.sessions, ignore_errors=True)

    def kill(self) -> None:
        """End all its processes at once, as a machine that loses its power."""
        for pid in processes_of(self._process.pid):  # its session: workers have groups
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


def statuses(output: str) -> dict[str, str]:
    """Stage -> ran, resumed or reused, as a job printed them."""
    return dict(re.findall(r"^ *\[\d+/\d+\] (\S+): (\w+)", output, re.M))
