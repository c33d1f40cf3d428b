"""A process that answers a line of JSON with a line of JSON, on a stated number of threads."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


class JsonWorker:
    """Starts `python -m MODULE ARGUMENTS`, which says something once it is ready."""

    def __init__(
        self, module: str, arguments: Sequence[str], *, python: Path, threads: int = 1
    ) -> None:
        """Say how to start it; entering the context does.

        Args:
            module: what runs.
            arguments: of the module.
            python: the interpreter.
            threads: of its libraries.
        """
        self._command = [str(python), "-W", "ignore", "-m", module, *arguments]
        self._environment = os.environ | dict.fromkeys(_THREADS, str(threads))
        self.hello: dict[str, Any] = {}

    def __enter__(self) -> JsonWorker:
        """Start the process and wait until it is ready."""
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hello = self._answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close its input, at which it ends."""
        self._process.communicate()

    def ask(self, request: Any = None) -> dict[str, Any]:
        """Send a request; return the answer.

        Raises:
            RuntimeError: the process ended without one; it said why on standard error.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._command)} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
