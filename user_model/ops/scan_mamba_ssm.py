"""The selective scan by mamba-ssm's Triton kernels, RoPE and the product in PyTorch: a peer.

For comparison only. The scan is mamba-ssm 2.3.1's `mamba_chunk_scan_combined` (Mamba-2, arXiv
2405.21060), which takes a packed batch as one long sequence with an index of the sequence of each
token; its two halves are called directly, so that each becomes a custom op. What it cannot do is
refused: float64, initial states of packed sequences, gradients through their final states.

Shapes: T packed tokens, S sequences, E of them not empty, H heads, P head width, N state.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from user_model.ops.backends import BackendUnavailableError, constant
from user_model.ops.packing import Plan
from user_model.ops.rotary import rope_planned

CHUNK = 256  # the default of mamba-ssm's own Mamba2 module
_NO_LIMIT = (0.0, float("inf"))


def scan_mamba_ssm(
    x_THP: Tensor,
    dt_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    z_THP: Tensor | None,
    plan: Plan,
    *,
    dt_bias_H: Tensor | None,
    initial_SHNP: Tensor | None,
    position_offset_S: Tensor | None,
    return_final_state: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return y * RoPE(z) in the type of x, and the final states [S, H, N, P] in float32 or None.

    Differentiable in every floating-point argument; through the final states only where S = 1.

    Raises:
        BackendUnavailableError: mamba-ssm is not installed, the tensors are on no GPU, or it cannot
            do what is asked.
    """
    floats = (x_THP, dt_TH, A_H, B_THN, C_THN, D_H, dt_bias_H)
    _check_asked(floats, plan, initial_SHNP, return_final_state)
    _check_there(x_THP.device)
    packed = plan.n_sequences > 1
    filled_E = plan.order.sort().values
    y_THP, final_EHPN = _forward(
        x_THP.contiguous(),
        dt_TH.contiguous(),
        A_H.float(),
        B_THN.contiguous(),
        C_THN.contiguous(),
        D_H.float(),
        None if dt_bias_H is None else dt_bias_H.float(),
        None if initial_SHNP is None else initial_SHNP.float().mT.contiguous(),
        torch.searchsorted(filled_E, plan.segments).int() if packed else None,
        plan.cu_seqlens[filled_E + 1] if packed else None,
        CHUNK,
        return_final_state,
    )
    if z_THP is not None:
        turned_THP = rope_planned(z_THP.float(), plan, position_offset_S)
        y_THP = (y_THP.float() * turned_THP).to(x_THP.dtype)
    if not return_final_state:
        return y_THP, None
    final_EHNP = final_EHPN.mT.contiguous()
    everyone = final_EHNP.new_zeros(plan.n_sequences, *final_EHNP.shape[1:])
    return y_THP, everyone.index_copy(0, filled_E, final_EHNP)


def _check_there(device: torch.device) -> None:
    if not _installed():
        raise BackendUnavailableError(
            "hydra_scan: backend 'mamba_ssm': no module mamba_ssm here, expected mamba-ssm 2.3.1; "
            "`make peers` installs it into .venv-peers, or use another backend"
        )
    if device.type != "cuda" and not _interpreted():
        raise BackendUnavailableError(
            f"hydra_scan: backend 'mamba_ssm': got tensors on {device}, expected a GPU or Triton's "
            "interpreter (TRITON_INTERPRET=1); move them, or use another backend"
        )


@constant
def _installed() -> bool:
    return importlib.util.find_spec("mamba_ssm") is not None


@constant
def _interpreted() -> bool:
    return bool(importlib.import_module("triton").knobs.runtime.interpret)


def _check_asked(
    floats: Sequence[Tensor | None],
    plan: Plan,
    initial_SHNP: Tensor | None,
    return_final_state: bool,
) -> None:
    packed = plan.n_sequences > 1
    differentiated = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in floats
    )
    refused = (
        (floats[0] is not None and floats[0].dtype == torch.float64, "float64 input"),
        (plan.n_tokens == 0, "a batch without tokens"),
        (packed and initial_SHNP is not None, "initial states of packed sequences"),
        (
            packed and return_final_state and differentiated,
            "final states of packed sequences with gradients (it can under torch.no_grad())",
        ),
    )
    for asked, what in refused:
        if asked:
            raise BackendUnavailableError(
                f"hydra_scan: backend 'mamba_ssm': mamba-ssm cannot do {what}; use another backend"
            )


@functools.cache
def _peer() -> Any:
    # Built without its CUDA extension, which the SSD kernels do not use but its __init__ imports:
    # an empty module stands in for it, for the time of the import.
    missing = importlib.util.find_spec("selective_scan_cuda") is None
    if missing:
        sys.modules["selective_scan_cuda"] = types.ModuleType("selective_scan_cuda")
    try:
        return importlib.import_module("mamba_ssm.ops.triton.ssd_combined")
    finally:
        if missing:
            del sys.modules["selective_scan_cuda"]


@torch.library.custom_op("hydrarec::scan_mamba_ssm", mutates_args=())
def _forward(
    x_THP: Tensor,
    dt_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    dt_bias_H: Tensor | None,
    initial_SHPN: Tensor | None,
    sequence_T: Tensor | None,
    ends_E: Tensor | None,
    chunk: int,
    return_final_state: bool,
) -> tuple[Tensor, Tensor]:
    """Return y and the final states [E, H, P, N], or none of them, [0]."""
    bounds = None
    if ends_E is not None and return_final_state:
        bounds = torch.cat((ends_E.new_zeros(1), ends_E))
    y_1THP, _, _, _, _, final_1HPN, *final_EHPN = _peer()._mamba_chunk_scan_combined_fwd(
        x_THP[None], dt_TH[None], A_H, B_THN[None], C_THN[None], chunk,
        D=D_H, dt_bias=dt_bias_H, initial_states=initial_SHPN,
        seq_idx=None if sequence_T is None else sequence_T[None], cu_seqlens=bounds,
        dt_softplus=True, dt_limit=_NO_LIMIT,
    )  # fmt: skip
    final = final_EHPN[0] if final_EHPN else final_1HPN
    return y_1THP[0], final.float() if return_final_state else x_THP.new_empty(0).float()


@_forward.register_fake
def _(
    x_THP: Tensor,
    dt_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    dt_bias_H: Tensor | None,
    initial_SHPN: Tensor | None,
    sequence_T: Tensor | None,
    ends_E: Tensor | None,
    chunk: int,
    return_final_state: bool,
) -> tuple[Tensor, Tensor]:
    _, H, P = x_THP.shape
    ended = 1 if ends_E is None else ends_E.shape[0]
    shape = (ended, H, P, B_THN.shape[-1]) if return_final_state else (0,)
    return torch.empty_like(x_THP), x_THP.new_empty(shape, dtype=torch.float32)


@torch.library.custom_op("hydrarec::scan_mamba_ssm_backward", mutates_args=())
def _backward(
    dy_THP: Tensor,
    dfinal_SHPN: Tensor | None,
    y_THP: Tensor,
    x_THP: Tensor,
    dt_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    dt_bias_H: Tensor | None,
    initial_SHPN: Tensor | None,
    sequence_T: Tensor | None,
    chunk: int,
) -> list[Tensor]:
    """Return the gradients of x .. D, dt_bias and the initial states; [0] for what was None."""
    dx, ddt, dA, dB, dC, dD, _, dbias, dinitial = _peer()._mamba_chunk_scan_combined_bwd(
        dy_THP[None], x_THP[None], dt_TH[None], A_H, B_THN[None], C_THN[None], y_THP[None], chunk,
        D=D_H, dt_bias=dt_bias_H, initial_states=initial_SHPN, dfinal_states=dfinal_SHPN,
        seq_idx=None if sequence_T is None else sequence_T[None],
        dt_softplus=True, dt_limit=_NO_LIMIT,
    )  # fmt: skip
    absent = A_H.new_empty(0)
    return [
        dx[0], ddt[0], dA, dB[0], dC[0], dD,
        absent if dt_bias_H is None else dbias,
        absent.clone() if initial_SHPN is None else dinitial.float(),
    ]  # fmt: skip


@_backward.register_fake
def _(
    dy_THP: Tensor,
    dfinal_SHPN: Tensor | None,
    y_THP: Tensor,
    x_THP: Tensor,
    dt_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    dt_bias_H: Tensor | None,
    initial_SHPN: Tensor | None,
    sequence_T: Tensor | None,
    chunk: int,
) -> list[Tensor]:
    of = (x_THP, dt_TH, A_H, B_THN, C_THN, D_H, dt_bias_H, initial_SHPN)
    return [A_H.new_empty(0) if tensor is None else torch.empty_like(tensor) for tensor in of]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.chunk, return_final_state = inputs
    ctx.through_final = return_final_state and inputs[9] is None
    ctx.save_for_backward(output[0], *tensors[:9])


def _differentiate(ctx: Any, dy_THP: Tensor, dfinal: Tensor) -> tuple[Tensor | None, ...]:
    dfinal_SHPN = dfinal.contiguous() if ctx.through_final else None
    gradients = _backward(dy_THP.contiguous(), dfinal_SHPN, *ctx.saved_tensors, ctx.chunk)
    needed = ctx.needs_input_grad[:8]
    given = (g if need else None for g, need in zip(gradients, needed, strict=True))
    return (*given, None, None, None, None)


_forward.register_autograd(_differentiate, setup_context=_save)
