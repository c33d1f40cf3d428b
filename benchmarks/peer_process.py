"""A process in .venv-peers that answers requests; `make peers` installs what it runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from benchmarks.peer_worker import receive, send

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-peers" / "bin" / "python"


class PeerProcess:
    """Starts `python -m MODULE ARGUMENTS`, which speaks as `benchmarks.peer_worker` does."""

    def __init__(self, module: str, arguments: Sequence[str], python: Path = PYTHON) -> None:
        """Say how to start it; entering the context does."""
        self._command, self._python = [str(python), "-m", module, *arguments], python

    def __enter__(self) -> Self:
        """Start the process.

        Raises:
            FileNotFoundError: the peers are not installed.
        """
        if not self._python.exists():
            raise FileNotFoundError(
                f"peers: no interpreter {self._python}, expected the environment that the peers "
                "are installed in; run: make peers"
            )
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close its input, at which it ends."""
        self._process.communicate()

    def ask(
        self, request: dict[str, Any], tensors: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Send a request; return the answer and its tensors.

        Raises:
            RuntimeError: the process ended without one; it said why on standard error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, request, dict(tensors or {}))
            return receive(self._process.stdout)
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(
                f"peers: the worker ended with status {self._process.wait()} at "
                f"{request.get('do', 'a request')!r}; its messages are on standard error"
            ) from error
