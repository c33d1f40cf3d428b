"""Other libraries' scans behind one signature, and a process that runs them in a venv of their own.

`python -m benchmarks.peer_worker` reads requests from standard input and writes answers to standard
output until its input ends; `benchmarks.peers.PeerWorker` is the other side. It needs torch, and
what each peer needs, but nothing of hydrarec's environment.

A message is two frames, a JSON object and tensors in safetensors' format; a frame is its length in
8 bytes, little end first, then the bytes. Requests, by "do":
    hold   keep the tensors: x, dt, A, B, C, D and the cotangent dy; "length": tokens a sequence
    run    {"peer": NAME} -> tensors y, dx, ddt, dA, dB, dC, dD
    time   {"peer": NAME, "repetitions": n, "backward": bool} -> {"seconds": [...]}
An answer is {"ok": true, ...}, or {"ok": false, "error": ...}.

The peers know no packed input on a CPU: T tokens are S sequences of one length L. dt comes after
softplus. Their B and C may be shared by groups of heads; here each head has its own.

Shapes: T tokens, S sequences, L tokens a sequence, H heads, P head width, N state.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import struct
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import IO, Any

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor

CHUNK = 64
INPUTS = ("x", "dt", "A", "B", "C", "D")
Tensors = dict[str, Tensor]
_LENGTH = struct.Struct("<Q")


def transformers_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, length: int
) -> Tensor:
    """Run the scan of transformers' Mamba-2 in its plain PyTorch form, in float32 at most.

    Args:
        x: [T, H, P].
        dt: [T, H], after softplus.
        A: [H], negative.
        B: [T, H, N].
        C: [T, H, N].
        D: [H].
        length: L, tokens of every sequence.

    Returns:
        y [T, H, P].
    """
    modeling = importlib.import_module("transformers.models.mamba2.modeling_mamba2")
    # Its decorator would take mamba-ssm's Triton kernels wherever that package is installed.
    scan = inspect.unwrap(modeling.mamba2_chunk_scan)
    y: Tensor = scan(*_batched(x, dt, length), A, *_batched(B, C, length), CHUNK, D=D)
    return y.flatten(0, 1)


def mamba_chunk(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, length: int
) -> Tensor:
    """Run mamba-ssm's `ssd_chunk_scan_combined_ref`; L padded to whole chunks, as it asks.

    It takes the exponential before the mask: gradients are not finite where a chunk decays by more
    than e^-88.
    """
    scan = _mamba("ops.triton.ssd_combined").ssd_chunk_scan_combined_ref
    x_, dt_, B_, C_ = _padded(*_batched(x, dt, B, C, length))
    y: Tensor = scan(x_, dt_, A, B_, C_, CHUNK, D=D)
    return y[:, :length].flatten(0, 1)


def mamba_minimal(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, length: int
) -> Tensor:
    """Run mamba-ssm's `ssd_minimal_discrete`, the listing of the Mamba-2 paper; D is added here."""
    scan = _mamba("modules.ssd_minimal").ssd_minimal_discrete
    x_, dt_, B_, C_ = _padded(*_batched(x, dt, B, C, length))
    y, _ = scan(x_ * dt_[..., None], A * dt_, B_, C_, CHUNK)
    y_THP: Tensor = y[:, :length].flatten(0, 1) + D[:, None] * x
    return y_THP


def mamba_selective(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, length: int
) -> Tensor:
    """Run mamba-ssm's `selective_scan_ref`, Mamba-1's loop over tokens, in float32 at most."""
    scan = _mamba("ops.selective_scan_interface").selective_scan_ref
    (H, P), N = x.shape[1:], B.shape[-1]
    x_, dt_, B_, C_ = _batched(x, dt, B, C, length)
    y: Tensor = scan(
        x_.flatten(2).mT,
        dt_.repeat_interleave(P, -1).mT,
        A.float().repeat_interleave(P)[:, None].expand(-1, N),
        B_.permute(0, 2, 3, 1),
        C_.permute(0, 2, 3, 1),
        D.float().repeat_interleave(P),
    )
    return y.mT.reshape(-1, H, P)


PEERS: dict[str, Callable[..., Tensor]] = {
    "transformers": transformers_scan,
    "mamba_chunk": mamba_chunk,
    "mamba_minimal": mamba_minimal,
    "mamba_selective": mamba_selective,
}


def forward_backward(scan: Callable[..., Tensor], inputs: Tensors, dy: Tensor) -> Tensors:
    """Run a scan on fresh leaves: y, and the gradient of each input for the cotangent dy."""
    leaves = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    y = scan(**leaves)
    gradients = torch.autograd.grad(y, list(leaves.values()), dy)
    return {"y": y.detach()} | {f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}


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
    inputs, dy, peer = {name: held[name] for name in INPUTS}, held["dy"], PEERS[header["peer"]]

    def scan(**leaves: Tensor) -> Tensor:
        return peer(**leaves, length=length)

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


def _batched(*tensors_and_length: Any) -> Iterator[Tensor]:
    *tensors, length = tensors_and_length
    return (value.unflatten(0, (-1, length)) for value in tensors)


def _padded(*batches: Tensor) -> Iterator[Tensor]:
    for value in batches:
        missing = -value.shape[1] % CHUNK
        yield F.pad(value, (*[0] * (2 * (value.dim() - 2)), 0, missing))


def _mamba(module: str) -> Any:
    # Built without its CUDA extension, which only Mamba-1's kernels use but its import asks for.
    sys.modules.setdefault("selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
    return importlib.import_module(f"mamba_ssm.{module}")


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
