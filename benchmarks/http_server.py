"""`python jobs/serve.py` as a process of its own, for the benchmark of HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.json_worker import ROOT

_START_SECONDS = 300.0


class HttpServer:
    """A server for the length of a `with` block.

    Args:
        bundle: what it serves.
        folder: for its control folder and its log.
        replicas: how many processes answer.
        options: further ones of the job.

    Raises:
        RuntimeError: it did not start; the message holds the end of its log.
    """

    def __init__(self, bundle: Path, folder: Path, replicas: int, options: Sequence[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._control, self._log_file = folder / "control", folder / "server.log"
        command = ("--bundle", str(bundle), "--replicas", str(replicas), *options)
        self._expected = replicas
        # It must not join the Ray of somebody else, whose work would share its workers.
        environment = {name: v for name, v in os.environ.items() if name != "RAY_ADDRESS"}
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(*command), cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def __enter__(self) -> HttpServer:
        """Wait until it answers."""
        until = time.monotonic() + _START_SECONDS
        while len(self.replicas()) < self._expected:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server did not start:\n{self.log[-2000:]}")
            time.sleep(0.2)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._log_file.read_text(errors="replace")

    def replicas(self) -> dict[str, Any]:
        """The replicas that it knows, by name: process and version of each."""
        path = self._control / "status.json"
        return json.loads(path.read_text())["replicas"] if path.is_file() else {}

    def swap(self, bundle: Path) -> subprocess.Popen[bytes]:
        """Begin to let it take another bundle; the command ends when every replica has it."""
        return subprocess.Popen(
            self._command("swap", str(bundle)), cwd=ROOT, stdout=subprocess.DEVNULL
        )

    def kill_a_replica(self) -> None:
        """Kill the process of one replica."""
        replica = next(iter(self.replicas().values()))
        os.kill(replica["process"], signal.SIGKILL)

    def _command(self, *more: str) -> list[str]:
        place = ("--port", str(self.port), "--control", str(self._control))
        return [sys.executable, "jobs/serve.py", *more, *place]
