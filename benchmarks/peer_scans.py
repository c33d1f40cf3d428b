"""Other libraries' scans behind one signature, and what makes Hydra's op of a scan.

The peers know no packed input on a CPU: T tokens are S sequences of one length L. Their B and C may
be shared by groups of heads; here each head has its own. dt comes after softplus.

Imported by `benchmarks.peer_worker` too, in an environment that has none of hydrarec's: it needs
torch, and what each peer needs.

Shapes: T tokens, S sequences, L tokens a sequence, H heads, P head width, R = P/2 rotated pairs,
N state.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Mamba-2's default is 256: the smaller chunk is the faster one on a CPU.
CHUNK = 64
INPUTS = ("x", "dt", "A", "B", "C", "D")
OPTIONAL = ("dt_bias", "z")


def transformers_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    length: int,
    chunk: int = CHUNK,
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
        chunk: tokens that are one matrix product.

    Returns:
        y [T, H, P].
    """
    modeling = importlib.import_module("transformers.models.mamba2.modeling_mamba2")
    # Its decorator would take mamba-ssm's Triton kernels wherever that package is installed.
    scan = inspect.unwrap(modeling.mamba2_chunk_scan)
    y: Tensor = scan(*_batched(x, dt, length), A, *_batched(B, C, length), chunk, D=D)
    return y.flatten(0, 1)


def mamba_chunk(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    length: int,
    chunk: int = CHUNK,
) -> Tensor:
    """Run mamba-ssm's `ssd_chunk_scan_combined_ref`; L padded to whole chunks, as it asks.

    It takes the exponential before the mask, within chunks and between them: gradients are not
    finite where a sequence decays by more than e^-88.
    """
    scan = _mamba("ops.triton.ssd_combined").ssd_chunk_scan_combined_ref
    x_, dt_, B_, C_ = _padded(chunk, *_batched(x, dt, B, C, length))
    y: Tensor = scan(x_, dt_, A, B_, C_, chunk, D=D)
    return y[:, :length].flatten(0, 1)


def mamba_minimal(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    length: int,
    chunk: int = CHUNK,
) -> Tensor:
    """Run mamba-ssm's `ssd_minimal_discrete`, the listing of the Mamba-2 paper; D is added here."""
    scan = _mamba("modules.ssd_minimal").ssd_minimal_discrete
    x_, dt_, B_, C_ = _padded(chunk, *_batched(x, dt, B, C, length))
    y, _ = scan(x_ * dt_[..., None], A * dt_, B_, C_, chunk)
    y_THP: Tensor = y[:, :length].flatten(0, 1) + D[:, None] * x
    return y_THP


def mamba_selective(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    length: int,
    chunk: int = CHUNK,
) -> Tensor:
    """Run mamba-ssm's `selective_scan_ref`, Mamba-1's loop over tokens, in float32 at most.

    It knows no chunks.
    """
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


def whole_op(
    scan: Callable[..., Tensor], *, length: int, chunk: int = CHUNK, turns: Tensor | None = None
) -> Callable[..., Tensor]:
    """Return what `hydra_scan` computes, of a peer's scan and as few torch operations as it takes.

    Args:
        scan: one of `PEERS`.
        length: L.
        chunk: as the scan takes it.
        turns: [L, R, 2], cosine and sine at each position; None where the op is called without z.

    Returns:
        A function of x, dt, A, B, C, D, and of dt_bias [H] and z [T, H, P] where they are given:
        without dt_bias dt is after softplus, without z the result is y alone.
    """

    def run(
        *, dt: Tensor, dt_bias: Tensor | None = None, z: Tensor | None = None, **others: Tensor
    ) -> Tensor:
        step_TH = dt if dt_bias is None else F.softplus(dt + dt_bias)
        y_THP = scan(dt=step_TH, length=length, chunk=chunk, **others)
        if z is None:
            return y_THP
        assert turns is not None
        H, P = z.shape[1:]
        pairs_SLHR = torch.view_as_complex(z.view(-1, length, H, P // 2, 2))
        turned = torch.view_as_real(pairs_SLHR * torch.view_as_complex(turns)[:, None])
        return y_THP * turned.view(-1, H, P)

    return run


def forward_backward(
    scan: Callable[..., Tensor], inputs: Mapping[str, Tensor], dy: Tensor
) -> dict[str, Tensor]:
    """Run a scan on fresh leaves: y, and the gradient of each input for the cotangent dy."""
    leaves = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    y = scan(**leaves)
    gradients = torch.autograd.grad(y, list(leaves.values()), dy)
    return {"y": y.detach()} | {f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}


def _batched(*tensors_and_length: Any) -> Iterator[Tensor]:
    *tensors, length = tensors_and_length
    return (value.unflatten(0, (-1, length)) for value in tensors)


def _padded(chunk: int, *batches: Tensor) -> Iterator[Tensor]:
    for value in batches:
        missing = -value.shape[1] % chunk
        yield F.pad(value, (*[0] * (2 * (value.dim() - 2)), 0, missing))


def _mamba(module: str) -> Any:
    # Built without its CUDA extension, which only Mamba-1's kernels use but its import asks for.
    sys.modules.setdefault("selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
    return importlib.import_module(f"mamba_ssm.{module}")
