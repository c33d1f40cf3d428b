"""`Hydra.step` without gradients on a CPU, compiled: a call a block (`ops.step_cpu_kernels`).

Shapes: n users, d model width, V heads, K channels a head of the convolution.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from user_model.heads import CONV_WIDTH, FullHeads, LeanHeads
from user_model.hydra import Hydra, HydraBlock
from user_model.streaming import HydraState
from user_model.time_gaps import NO_EVENT, gap_buckets, log_gaps

Floats = NDArray[np.float32]


class CompiledStep:
    """A Hydra's weights, laid out for the step; later changes of the model do not count.

    Args:
        model: float32, on the CPU, with heads of Mamba-2 (head: full or lean).

    Raises:
        ValueError: a model of another kind.
    """

    def __init__(self, model: Hydra) -> None:
        problem = cannot_compile(model)
        if problem:
            raise ValueError(f"compiled step: {problem}; use Hydra.step")
        from user_model.ops import step_cpu_kernels

        self._kernels = step_cpu_kernels
        self._rope, self._reads_times = model.config.rope, model.reads_times
        self._input_norm, self._norm = _array(model.input_norm.weight), _array(model.norm.weight)
        self._gap_vectors = None if model.gap_vectors is None else _array(model.gap_vectors)
        blocks = [block for block in model.blocks if isinstance(block, HydraBlock)]
        self._blocks = [self._laid_out(block) for block in blocks]

    def __call__(
        self, state: HydraState, vectors_nd: Tensor, times_n: Tensor | None = None
    ) -> tuple[HydraState, Tensor]:
        """Do what `Hydra.step` does, unchecked: the state is one of this model, of n users."""
        vectors, at = vectors_nd.numpy(), state.positions.numpy()
        h = np.empty(vectors.shape, dtype=np.float32)
        self._kernels.normalise_rows(vectors, self._input_norm, h)
        gaps_n = np.zeros(0)
        if self._gap_vectors is not None and times_n is not None and state.times is not None:
            seconds_n = torch.where(state.times == NO_EVENT, 0, times_n - state.times)
            gaps = log_gaps(seconds_n)
            h += self._gap_vectors[gap_buckets(gaps).numpy()]
            gaps_n = gaps.numpy()
        none = vectors_nd.new_empty(0, vectors_nd.shape[1])
        after: list[list[Tensor]] = []
        for number, weights in enumerate(self._blocks):
            sums = state.sums[number] if state.sums else none
            before = state.scans[number], state.tails[number], sums
            arrays = [tensor.numpy() for tensor in before]
            changed = [np.empty_like(array) for array in arrays]
            flat = [arrays[1].reshape(len(h), 3, -1), changed[1].reshape(len(h), 3, -1)]
            self._kernels.block_step(
                weights, self._rope, h, at, gaps_n,
                arrays[0], flat[0], arrays[2], changed[0], flat[1], changed[2],
            )  # fmt: skip
            after.append([torch.from_numpy(array) for array in changed])
        last = np.empty_like(h)
        self._kernels.normalise_rows(h, self._norm, last)
        scans, tails, totals = (tuple(layer[part] for layer in after) for part in range(3))
        stepped = HydraState(
            scans, tails, torch.from_numpy(at + 1), times_n if self._reads_times else None,
            totals if state.sums else (),
        )  # fmt: skip
        return stepped, torch.from_numpy(last)

    def _laid_out(self, block: HydraBlock) -> object:
        heads = block.interaction
        assert isinstance(heads, FullHeads | LeanHeads)
        P, d = heads.in_projection.weight.shape[1], block.norm.weight.shape[0]
        none, out_projection = torch.empty(0), torch.empty(0, P, P)
        head_norm = none
        if isinstance(heads, FullHeads):
            head_norm, out_projection = heads.norm_weight, heads.out_projection.weight
        mean = block.history_mean
        parts: list[Tensor] = [
            block.norm.weight,
            block.input.weight.T,
            heads.in_projection.weight,
            none if heads.gap_weight is None else heads.gap_weight,
            heads.conv.weight.view(-1, CONV_WIDTH).T,
            heads.conv.bias,
            heads.scan.dt_bias,
            heads.scan.decay_rates,
            heads.scan.D,
            head_norm,
            out_projection,
            block.output.weight.T,
            torch.empty(0, d) if mean is None else mean.linear.weight.T,
            block.ffn_norm.weight,
            block.ffn.up.weight.T,
            block.ffn.down.weight.T,
        ]
        return self._kernels.BlockWeights(*map(_array, parts))


def cannot_compile(model: Hydra) -> str:
    """Say why a model's step has no compiled form here; an empty string where it has one."""
    from user_model.ops.backends import cpu_problem

    weight = model.norm.weight
    if model.config.head == "mamba1":
        return "got head: mamba1, expected full or lean"
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return f"got {weight.dtype} on {weight.device}, expected float32 on cpu"
    return cpu_problem()


def _array(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().numpy())
