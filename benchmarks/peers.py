"""The peers that benchmarks and tests compare the scan with; `make peers` installs them.

    with PeerWorker(threads=1) as peers:
        peers.hold(inputs, dy, length=200)
        theirs = peers.run("mamba_chunk")            # y, dx, ddt, dA, ...
        seconds = peers.time("mamba_chunk")          # one repetition: alternate it with ours

The mamba-ssm of the comparison needs build flags of its own, so it lives in .venv-peers and runs as
a subprocess. transformers' form runs in this process too: `transformers_scan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.peer_process import PYTHON, ROOT, PeerProcess
from benchmarks.peer_scans import (
    CHUNK,
    INPUTS,
    OPTIONAL,
    PEERS,
    forward_backward,
    transformers_scan,
    whole_op,
)

__all__ = ["PYTHON", "ROOT", "PeerWorker", "forward_backward", "transformers_scan", "whole_op"]


class PeerWorker(PeerProcess):
    """A process in .venv-peers that runs the peers' scans, on a stated number of threads."""

    def __init__(self, threads: int = 1, python: Path = PYTHON) -> None:
        """Say how to start it; entering the context does.

        Args:
            threads: torch threads of the process.
            python: the interpreter that has the peers.
        """
        super().__init__("benchmarks.peer_worker", [str(threads)], python)

    def hold(
        self,
        inputs: Mapping[str, Tensor],
        dy: Tensor,
        *,
        length: int,
        turns: Tensor | None = None,
    ) -> None:
        """Hand over what `run` and `time` work on until the next `hold`.

        Args:
            inputs: x [T, H, P], dt [T, H], A [H], B and C [T, H, N], D [H], and perhaps dt_bias
                [H] and z [T, H, P]. With dt_bias dt is before softplus, without it after; with z
                the result is y * RoPE(z).
            dy: [T, H, P], the cotangent of the result.
            length: L, tokens of every sequence: the peers know no packed input on a CPU.
            turns: [L, P / 2, 2], RoPE's cosine and sine at each position; given if z is.

        Raises:
            ValueError: an input is missing or unknown, z comes without turns or turns without z, or
                T is not a multiple of `length`.
        """
        if set(inputs) - set(OPTIONAL) != set(INPUTS):
            raise ValueError(
                f"hold: inputs: got {sorted(inputs)}, expected {', '.join(INPUTS)}, and perhaps "
                f"{', '.join(OPTIONAL)}"
            )
        if ("z" in inputs) != (turns is not None):
            raise ValueError(
                "hold: got one of z and turns, expected both (y * RoPE(z)) or neither (y alone)"
            )
        if length < 1 or len(dy) % length:
            raise ValueError(
                f"hold: length: got {length} for {len(dy)} tokens, expected whole sequences of it"
            )
        held = {**inputs, "dy": dy} | ({} if turns is None else {"turns": turns})
        self._ask({"do": "hold", "length": length}, held)

    def run(self, peer: str, *, chunk: int = CHUNK, bare: bool = False) -> dict[str, Tensor]:
        """Return a peer's result [T, H, P], as y, and the gradient of each input: dx, ddt, ...

        Args:
            peer: its name.
            chunk: tokens that it takes as one matrix product.
            bare: whether z is left aside.

        Raises:
            ValueError: no peer has this name.
            RuntimeError: the peer failed.
        """
        _, tensors = self._ask({"do": "run", "peer": _known(peer), "chunk": chunk, "bare": bare})
        return tensors

    def time(
        self,
        peer: str,
        repetitions: int = 1,
        *,
        backward: bool = True,
        chunk: int = CHUNK,
        bare: bool = False,
    ) -> list[float]:
        """Return the seconds of each repetition of a peer's forward, and backward if asked for.

        Measured in the worker, by the wall clock, without what the hand-over costs. The first call
        of a peer imports it as well: warm up once. `chunk` and `bare` are those of `run`.

        Raises:
            ValueError: no peer has this name.
            RuntimeError: the peer failed.
        """
        request = {"do": "time", "repetitions": repetitions, "backward": backward}
        answer, _ = self._ask(request | {"peer": _known(peer), "chunk": chunk, "bare": bare})
        seconds: list[float] = answer["seconds"]
        return seconds

    def _ask(
        self, request: dict[str, Any], tensors: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        answer, values = self.ask(request, tensors)
        if not answer["ok"]:
            raise RuntimeError(f"peers: {request}: {answer['error']}")
        return answer, values


def _known(peer: str) -> str:
    if peer not in PEERS:
        raise ValueError(f"peers: got {peer!r}, expected one of {', '.join(PEERS)}")
    return peer
