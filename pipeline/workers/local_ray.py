"""A Ray of one's own on this machine: started for one job, ended after it.

    python -m pipeline.workers.local_ray -- python jobs/multidomain.py --config configs/demo.yaml

`make demo` and the tests use it. It listens on the loopback's dashboard port, asks for a token of
its own, and is ended by its process id: `ray stop` would end every Ray of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from pipeline.interrupts import Interrupted, interruptible
from pipeline.paths import data_root, project_root

_START_SECONDS = 300.0
# How long `ray start` waits until its node is known. It gives up after 30 s otherwise, which a busy
# machine of two cores needs for the node's Python processes alone.
_NODE_SECONDS = 240
_STOP_SECONDS = 30.0
# A raylet ends itself where its agent has named no port within 15 s, which no setting changes and a
# busy machine may need, and `ray start` waits on for it. So such a start is made once more.
_ATTEMPTS = 3
_GAVE_UP = "Check failed"
# Two training workers, Ray Train's controller and a Ray Data actor must be schedulable at once,
# even where there are two cores: these are slots for Ray's scheduler, not cores.
_LEAST_CPUS = 4


class LocalRay:
    """A Ray head on this machine for the length of a `with` block.

    Args:
        cpus: Slots that Ray's scheduler hands out; None: the cores, at least 4.

    Raises:
        RuntimeError: Ray did not start; the message holds the end of its log.
    """

    def __init__(self, *, cpus: int | None = None) -> None:
        self._cpus = max(_LEAST_CPUS, os.cpu_count() or 1) if cpus is None else cpus
        self._folder = Path(tempfile.mkdtemp(prefix="hydrarec-ray-"))
        # All of them free: Ray's fixed defaults are taken where another Ray runs.
        (
            self._port,
            self._dashboard_port,
            self._agent_port,
            self._agent_grpc_port,
            self._metrics_port,
            self._client_port,
        ) = _free_ports(6)
        self._head: subprocess.Popen[bytes] | None = None

    @property
    def dashboard(self) -> str:
        """The address that jobs are submitted to."""
        return f"http://127.0.0.1:{self._dashboard_port}"

    @property
    def address(self) -> str:
        """The address that further nodes join."""
        return f"127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every process that talks to this Ray."""
        return os.environ | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "RAY_API_SERVER_ADDRESS": self.dashboard,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": str(_NODE_SECONDS),
            # Told to end, a head waits so long for its actors to leave; Ray Data's never do.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "PYTHONUNBUFFERED": "1",
        }

    def __enter__(self) -> LocalRay:
        token = self._folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        try:
            for attempt in range(_ATTEMPTS):
                if self._starts(self._folder / f"r{attempt}"):
                    return self
                self._stop()
            end = self._log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"Ray did not start in {_ATTEMPTS} attempts; its log ends:\n{end}")
        except BaseException:
            self._stop()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _stop(self) -> None:
        if self._head is None:
            return
        self._head.send_signal(signal.SIGTERM)
        try:
            self._head.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._head.kill()
            self._head.wait()

    def submit(
        self,
        entrypoint: Sequence[str],
        *,
        working_dir: Path,
        variables: Mapping[str, str] | None = None,
        capture: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """`ray job submit` of one command; returns when the job has ended, with its exit status."""
        runtime = json.dumps({"env_vars": dict(variables or {})})
        command = [_ray(), "job", "submit", "--working-dir", str(working_dir)]
        return subprocess.run(
            [*command, "--runtime-env-json", runtime, "--", *entrypoint],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE if capture else None,
            stderr=subprocess.STDOUT if capture else None,
            check=False,
        )

    @property
    def _log(self) -> Path:
        return self._folder / "head.log"

    def _command(self, sessions: Path) -> list[str]:
        return [
            *(_ray(), "start", "--head", "--block", "--disable-usage-stats"),
            *("--node-ip-address", "127.0.0.1", "--port", str(self._port)),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(self._dashboard_port)),
            *("--dashboard-agent-listen-port", str(self._agent_port)),
            *("--dashboard-agent-grpc-port", str(self._agent_grpc_port)),
            *("--metrics-export-port", str(self._metrics_port)),
            *("--ray-client-server-port", str(self._client_port)),
            *("--num-cpus", str(self._cpus), "--object-store-memory", str(300 * 2**20)),
            *("--temp-dir", str(sessions)),
        ]

    def _starts(self, sessions: Path) -> bool:
        with self._log.open("wb") as log:
            self._head = subprocess.Popen(
                self._command(sessions),
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for the command; this Ray ends after it
            )
        deadline = time.monotonic() + _START_SECONDS
        raylet = sessions / "session_latest" / "logs" / "raylet.err"
        while time.monotonic() < deadline and self._head.poll() is None:
            started = "Ray runtime started" in self._log.read_text(errors="replace")
            if started and _listens(self._agent_port):  # the agent is who starts jobs
                return True
            if raylet.is_file() and _GAVE_UP in raylet.read_text(errors="replace"):
                return False
            time.sleep(0.2)
        return False


def _ray() -> str:
    return str(Path(sys.executable).parent / "ray")


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a Ray, submit the command after `--`, follow it, end the Ray; returns its status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.workers.local_ray", description=__doc__
    )
    parser.add_argument("--cpus", type=int, help="slots for Ray's scheduler (default: cores, >= 4)")
    parser.add_argument("entrypoint", nargs="+", help="the command to submit, after --")
    options = parser.parse_args(arguments)
    home = project_root()
    variables = {"HYDRAREC_DATA": str(data_root()), "HYDRAREC_HOME": str(home)}
    print("starting a Ray of its own on this machine ...", flush=True)
    try:
        with interruptible(), LocalRay(cpus=options.cpus) as ray:
            return ray.submit(options.entrypoint, working_dir=home, variables=variables).returncode
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr, flush=True)
        return interrupted.status


if __name__ == "__main__":
    sys.exit(main())
