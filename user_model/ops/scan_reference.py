"""The selective scan as a loop over tokens: the specification of every faster form.

Shapes: T packed tokens, S sequences, H heads, P head width, N state.
"""

from itertools import pairwise

import torch
from torch import Tensor


def scan_reference(
    x_THP: Tensor,
    step_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    cu_seqlens: Tensor,
    initial_SHNP: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run h_t = exp(s_t A) h_(t-1) + s_t B_t x_t^T, y_t = h_t^T C_t + D x_t; return y, last h.

    The state is zero, or the sequence's row of `initial_SHNP`, where a sequence begins.
    """
    (_, H, P), N = x_THP.shape, B_THN.shape[-1]
    outputs, finals = [x_THP.new_zeros(0, H, P)], [x_THP.new_zeros(0, H, N, P)]
    for s, (begin, end) in enumerate(pairwise(cu_seqlens.tolist())):
        h_HNP = x_THP.new_zeros(H, N, P) if initial_SHNP is None else initial_SHNP[s]
        for t in range(begin, end):
            decay_H = torch.exp(step_TH[t] * A_H)
            input_HP = step_TH[t][:, None] * x_THP[t]
            h_HNP = decay_H[:, None, None] * h_HNP + B_THN[t][:, :, None] * input_HP[:, None, :]
            y_HP = (C_THN[t][:, :, None] * h_HNP).sum(1) + D_H[:, None] * x_THP[t]
            outputs.append(y_HP[None])
        finals.append(h_HNP[None])
    return torch.cat(outputs), torch.cat(finals)
