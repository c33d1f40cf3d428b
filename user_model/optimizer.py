"""AdamW of the dense weights and of the rows that a step touches; the learning-rate schedule.

Shapes: V rows of the table, U rows touched by a step, d width.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from user_model.training_config import TrainingConfig

_EPS = 1e-8


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


def dense_adamw(
    parameters: Iterable[tuple[str, nn.Parameter]], config: TrainingConfig
) -> torch.optim.AdamW:
    """Make AdamW with decay on matrices alone: vectors are norms, biases, A_log, dt_bias and D."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for _, parameter in parameters:
        (decayed if parameter.ndim >= 2 else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def dense_state(
    optimizer: torch.optim.AdamW, parameters: Iterable[tuple[str, nn.Parameter]]
) -> dict[str, Tensor]:
    """Return AdamW's tensors by the names of the parameters, for a checkpoint."""
    return {
        f"dense.{name}.{key}": value
        for name, parameter in parameters
        for key, value in optimizer.state[parameter].items()
    }


def load_dense_state(
    optimizer: torch.optim.AdamW,
    parameters: Iterable[tuple[str, nn.Parameter]],
    state: dict[str, Tensor],
) -> None:
    """Take AdamW's tensors of a checkpoint."""
    for name, parameter in parameters:
        prefix = f"dense.{name}."
        found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        optimizer.state[parameter] = {key: value.clone() for key, value in found.items()}


def learning_rate(config: TrainingConfig, step: int, progress: float) -> float:
    """Return the rate of a step: linear warm-up, then a cosine from lr to lr x min_lr_share.

    Args:
        config: settings.
        step: steps done before this one.
        progress: share of all epochs done, in [0, 1].
    """
    floor = config.min_lr_share
    cosine = floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.lr * cosine * min(1.0, (step + 1) / max(config.warmup_steps, 1))
