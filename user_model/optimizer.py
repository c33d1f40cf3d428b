"""AdamW of the dense weights and of the rows that a step touches; the learning-rate schedule.

Shapes: V rows of the table, U rows touched by a step, d width.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from user_model.training_config import TrainingConfig

_EPS = 1e-8
_MOMENTS = ("first", "second")


class RowAdamW:
    """AdamW over the touched rows of a table: a row's moments and decay move only with the row.

    A step costs O(U d), not O(V d). Each row corrects its bias by its own number of steps, so that
    a row touched in every step moves exactly as under AdamW.  Our choice.

    Args:
        table: parameter [V, d].
        betas: decay rates of the two moments.
        weight_decay: decoupled decay of a touched row.
    """

    def __init__(
        self, table: nn.Parameter, *, betas: tuple[float, float], weight_decay: float
    ) -> None:
        self.table = table
        self.betas, self.weight_decay = betas, weight_decay
        self.first = torch.zeros_like(table, requires_grad=False)
        self.second = torch.zeros_like(table, requires_grad=False)
        self.steps = torch.zeros(len(table), dtype=torch.int32, device=table.device)

    @torch.no_grad()
    def step(self, rows_U: Tensor, gradient_Ud: Tensor, lr: float) -> None:
        """Move rows int64 [U], each named once, against their gradient [U, d]."""
        beta1, beta2 = self.betas
        steps_U1 = (self.steps.index_select(0, rows_U) + 1)[:, None]
        first = self.first.index_select(0, rows_U).lerp_(gradient_Ud, 1.0 - beta1)
        second = self.second.index_select(0, rows_U).mul_(beta2)
        second.addcmul_(gradient_Ud, gradient_Ud, value=1.0 - beta2)
        self.steps.index_copy_(0, rows_U, steps_U1.squeeze(1))
        self.first.index_copy_(0, rows_U, first)
        self.second.index_copy_(0, rows_U, second)
        scale_U1 = lr / (1.0 - beta1 ** steps_U1.to(gradient_Ud.dtype))
        deviation = second.div_(1.0 - beta2 ** steps_U1.to(gradient_Ud.dtype)).sqrt_().add_(_EPS)
        rows = self.table.index_select(0, rows_U)
        if self.weight_decay:
            rows.mul_(1.0 - lr * self.weight_decay)
        self.table.index_copy_(0, rows_U, rows.sub_(first.mul_(scale_U1).div_(deviation)))

    def state(self) -> dict[str, Tensor]:
        """Return the moments and steps by name, for a checkpoint."""
        return {"rows.first": self.first, "rows.second": self.second, "rows.steps": self.steps}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the moments and steps of a checkpoint."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


class DenseAdamW:
    """AdamW over whole tensors, with decay on matrices alone.

    Vectors do not decay: they are norms, biases, A_log, dt_bias and D. torch.optim's AdamW computes
    the same, but brings in torch's compiler, seconds of every process that trains.

    Args:
        named: parameters by name.
        betas: decay rates of the two moments.
        weight_decay: decoupled decay of parameters with two dimensions or more.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, nn.Parameter]],
        *,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        self.names = [name for name, _ in named]
        self.parameters: list[Tensor] = [parameter for _, parameter in named]
        self.betas, self.weight_decay = betas, weight_decay
        self.first = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.second = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.steps = torch.zeros((), dtype=torch.int64)

    @property
    def decayed(self) -> list[Tensor]:
        """The parameters that decay."""
        return [p for p in self.parameters if p.ndim >= 2]

    @torch.no_grad()
    def step(self, gradients: list[Tensor], lr: float) -> None:
        """Move every parameter against its gradient, in the order of `named`."""
        if not self.parameters:
            return
        beta1, beta2 = self.betas
        self.steps += 1
        steps = int(self.steps)
        if self.weight_decay and self.decayed:
            torch._foreach_mul_(self.decayed, 1.0 - lr * self.weight_decay)
        torch._foreach_lerp_(self.first, gradients, 1.0 - beta1)
        torch._foreach_mul_(self.second, beta2)
        torch._foreach_addcmul_(self.second, gradients, gradients, 1.0 - beta2)
        deviation = torch._foreach_sqrt(self.second)
        torch._foreach_div_(deviation, math.sqrt(1.0 - beta2**steps))
        torch._foreach_add_(deviation, _EPS)
        size = -lr / (1.0 - beta1**steps)
        torch._foreach_addcdiv_(self.parameters, self.first, deviation, size)

    def state(self) -> dict[str, Tensor]:
        """Return the moments by the names of the parameters, and the steps, for a checkpoint."""
        named = zip(self.names, self.first, self.second, strict=True)
        moments = {
            f"dense.{n}.{k}": t for n, *ts in named for k, t in zip(_MOMENTS, ts, strict=True)
        }
        return moments | {"dense.steps": self.steps}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the moments and steps of a checkpoint."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def learning_rate(config: TrainingConfig, step: int, progress: float) -> float:
    """Return the rate of a step: linear warm-up, then a fall from lr to lr x min_lr_share.

    cosine: along half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983); linear: along a
    line; constant: it stays lr.

    Args:
        config: settings.
        step: steps done before this one.
        progress: share of all epochs done, in [0, 1].
    """
    left = {
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
        "linear": 1.0 - progress,
        "constant": 1.0,
    }[config.schedule]
    share = config.min_lr_share + (1.0 - config.min_lr_share) * left
    return config.lr * share * min(1.0, (step + 1) / max(config.warmup_steps, 1))
