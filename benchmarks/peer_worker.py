"""A process that runs other libraries' scans in a venv of their own.

`python -m benchmarks.peer_worker` reads requests from standard input and writes answers to standard
output until its input ends; `benchmarks.peers.PeerWorker` is the other side. It needs torch, and
what each peer needs, but nothing of hydrarec's environment.

A message is two frames, a JSON object and tensors in safetensors' format; a frame is its length in
8 bytes, little end first, then the bytes. Requests, by "do":
    hold   keep the tensors: x, dt, A, B, C, D, the cotangent dy, and perhaps dt_bias, z and turns;
           "length": tokens a sequence
    run    {"peer": NAME, "chunk": n, "bare": bool} -> tensors y and d* for each input
    time   the same and {"repetitions": n, "backward": bool} -> {"seconds": [...]}
An answer is {"ok": true, ...}, or {"ok": false, "error": ...}. "bare" leaves z aside.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
import time
from typing import IO, Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from benchmarks.peer_scans import INPUTS, OPTIONAL, PEERS, forward_backward, whole_op

Tensors = dict[str, Tensor]
_LENGTH = struct.Struct("<Q")


def send(stream: IO[bytes], header: dict[str, Any], tensors: Tensors | None = None) -> None:
    """Write one message."""
    contiguous = {name: value.contiguous() for name, value in (tensors or {}).items()}
    for frame in (json.dumps(header).encode(), save(contiguous)):
        stream.write(_LENGTH.pack(len(frame)))
        stream.write(frame)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], Tensors]:
    """Read one message.

    Raises:
        EOFError: the other side has closed the stream.
    """
    return json.loads(_frame(stream)), load(_frame(stream))


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    held: Tensors = {}
    length = 0
    with contextlib.suppress(EOFError):
        while True:
            header, tensors = receive(requests)
            try:
                if header["do"] == "hold":
                    held, length = tensors, header["length"]
                    send(answers, {"ok": True})
                else:
                    send(answers, *_answer(header, held, length))
            except Exception as error:  # the asker hears of it, whatever it is, and decides
                send(answers, {"ok": False, "error": f"{type(error).__name__}: {error}"})


def _answer(header: dict[str, Any], held: Tensors, length: int) -> tuple[dict[str, Any], Tensors]:
    inputs, dy = {name: held[name] for name in INPUTS}, held["dy"]
    inputs |= {name: held[name] for name in OPTIONAL if name in held}
    if header["bare"]:
        inputs.pop("z", None)
    scan = whole_op(
        PEERS[header["peer"]], length=length, chunk=header["chunk"], turns=held.get("turns")
    )
    if header["do"] == "run":
        return {"ok": True}, forward_backward(scan, inputs, dy)
    assert header["do"] == "time", header
    seconds = []
    for _ in range(header["repetitions"]):
        began = time.perf_counter()
        if header["backward"]:
            forward_backward(scan, inputs, dy)
        else:
            with torch.no_grad():
                scan(**inputs)
        seconds.append(time.perf_counter() - began)
    return {"ok": True, "seconds": seconds}, {}


def _frame(stream: IO[bytes]) -> bytes:
    size = stream.read(_LENGTH.size)
    if len(size) < _LENGTH.size:
        raise EOFError("the other side has closed the stream")
    (length,) = _LENGTH.unpack(size)
    frame = stream.read(length)
    if len(frame) < length:
        raise EOFError(f"the stream ended {length - len(frame)} bytes early")
    return frame


def main() -> None:
    """Serve on standard input and output; what libraries print goes to standard error."""
    torch.set_num_threads(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
