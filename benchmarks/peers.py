"""The peers that benchmarks and tests compare the scan with; `make peers` installs them.

    with PeerWorker(threads=1) as peers:
        peers.hold(inputs, dy, length=200)
        theirs = peers.run("mamba_chunk")            # y, dx, ddt, dA, dB, dC, dD
        seconds = peers.time("mamba_chunk")          # one repetition: alternate it with ours

The mamba-ssm of the comparison needs build flags of its own, so it lives in .venv-peers and runs as
a subprocess. transformers' form runs in this process too: `transformers_scan`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from benchmarks.peer_worker import INPUTS, PEERS, forward_backward, receive, send, transformers_scan

__all__ = ["PYTHON", "PeerWorker", "forward_backward", "transformers_scan"]

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-peers" / "bin" / "python"


class PeerWorker:
    """A process in .venv-peers that runs the peers' scans, on a stated number of threads."""

    def __init__(self, threads: int = 1, python: Path = PYTHON) -> None:
        """Say how to start it; entering the context does.

        Args:
            threads: torch threads of the process.
            python: the interpreter that has the peers.
        """
        self.threads, self.python = threads, python

    def __enter__(self) -> PeerWorker:
        """Start the process.

        Raises:
            FileNotFoundError: the peers are not installed.
        """
        if not self.python.exists():
            raise FileNotFoundError(
                f"peers: no interpreter {self.python}, expected the environment that mamba-ssm is "
                "installed in; run: make peers"
            )
        command = [str(self.python), "-m", "benchmarks.peer_worker", str(self.threads)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
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

    def hold(self, inputs: Mapping[str, Tensor], dy: Tensor, *, length: int) -> None:
        """Hand over what `run` and `time` work on until the next `hold`.

        Args:
            inputs: x [T, H, P], dt [T, H] after softplus, A [H], B and C [T, H, N], D [H].
            dy: [T, H, P], the cotangent of y.
            length: tokens of every sequence: the peers know no packed input on a CPU.

        Raises:
            ValueError: an input is missing or unknown, or T is not a multiple of `length`.
        """
        if set(inputs) != set(INPUTS):
            raise ValueError(f"hold: inputs: got {sorted(inputs)}, expected {', '.join(INPUTS)}")
        if length < 1 or len(dy) % length:
            raise ValueError(
                f"hold: length: got {length} for {len(dy)} tokens, expected whole sequences of it"
            )
        self._ask({"do": "hold", "length": length}, {**inputs, "dy": dy})

    def run(self, peer: str) -> dict[str, Tensor]:
        """Return y [T, H, P] of a peer and the gradients dx, ddt, dA, dB, dC, dD.

        Raises:
            ValueError: no peer has this name.
            RuntimeError: the peer failed.
        """
        _, tensors = self._ask({"do": "run", "peer": _known(peer)})
        return tensors

    def time(self, peer: str, repetitions: int = 1, *, backward: bool = True) -> list[float]:
        """Return the seconds of each repetition of a peer's forward, and backward if asked for.

        Measured in the worker, by the wall clock, without what the hand-over costs. The first call
        of a peer imports it as well: warm up once.

        Raises:
            ValueError: no peer has this name.
            RuntimeError: the peer failed.
        """
        request = {"do": "time", "repetitions": repetitions, "backward": backward}
        answer, _ = self._ask(request | {"peer": _known(peer)})
        seconds: list[float] = answer["seconds"]
        return seconds

    def _ask(
        self, request: dict[str, Any], tensors: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, request, dict(tensors or {}))
            answer, values = receive(self._process.stdout)
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(
                f"peers: the worker ended with status {self._process.wait()} at {request['do']!r}; "
                "its messages are on standard error"
            ) from error
        if not answer["ok"]:
            raise RuntimeError(f"peers: {request}: {answer['error']}")
        return answer, values


def _known(peer: str) -> str:
    if peer not in PEERS:
        raise ValueError(f"peers: got {peer!r}, expected one of {', '.join(PEERS)}")
    return peer
