"""A linear map of the mean of a user's events so far: what a selective scan cannot give.

The heads' inputs go through SiLU twice before they are summed, so that no head can return the plain
mean of its history, which attention does at its first step. With few events a user that is most of
what there is to learn; docs/log.md has what it gains.  Our choice; the paper has none.

Shapes: T packed tokens, S sequences, n users with one event each, d model width.
"""

import torch
from torch import Tensor, nn

from user_model import ops
from user_model.heads import Packed
from user_model.layers import Linear


class HistoryMean(nn.Module):
    """W mean(n_1 ... n_t), by a W of zeros at first: a block begins as one without it.

    Args:
        dim: model width d.
        backend: of the map.
    """

    def __init__(self, dim: int, backend: str = "auto") -> None:
        super().__init__()
        self.linear = Linear(dim, dim, bias=False, backend=backend)
        nn.init.zeros_(self.linear.weight)

    def forward(self, normed_Td: Tensor, packed: Packed) -> tuple[Tensor, Tensor | None]:
        """Return the map after each event, [T, d], and the sums after the last ones, [S, d].

        The sums go on from those of the state in `packed`; None where no state is asked for.
        """
        plan, before = packed.plan, packed.state
        sums_Td = ops.running_sum(normed_Td, packed.cu_seqlens, plan=plan, backend=packed.backend)
        counts_T = plan.positions + 1
        if before is not None:
            assert before.sums is not None
            assert packed.position_offset is not None
            sums_Td = sums_Td + before.sums[plan.segments]
            counts_T = counts_T + packed.position_offset[plan.segments]
        mean_Td = (sums_Td / counts_T[:, None]).to(normed_Td.dtype)
        last = self._last(sums_Td, packed) if packed.keep_state else None
        return self.linear(mean_Td), last

    def step(
        self, normed_nd: Tensor, at_n: Tensor, sums_nd: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Do the same with one event of each user, number at_n (from 0) of theirs."""
        assert sums_nd is not None
        sums_nd = sums_nd + normed_nd
        mean_nd = (sums_nd / (at_n + 1)[:, None]).to(normed_nd.dtype)
        return self.linear(mean_nd), sums_nd

    def _last(self, sums_Td: Tensor, packed: Packed) -> Tensor:
        """The sums after each sequence's last event, [S, d]; of an empty one what was before."""
        seams = packed.cu_seqlens
        before = None if packed.state is None else packed.state.sums
        if before is None:
            before = sums_Td.new_zeros(len(seams) - 1, sums_Td.shape[1])
        if not len(sums_Td):
            return before
        filled_S = (seams[1:] > seams[:-1])[:, None]
        return torch.where(filled_S, sums_Td[(seams[1:] - 1).clamp(min=0)], before)
