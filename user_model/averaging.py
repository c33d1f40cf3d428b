"""The moving average of a training's weights, which is validated and kept in their place.

Exponential averages of the weights along a training score better than its last weights (Polyak and
Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407). The average starts at the first step and not
at the initial weights: after t steps the weights of step i count decay^(t-i), divided by the sum
(the correction of Adam, Kingma and Ba 2015). Rows of the id table that a step does not touch do not
change, so their part of the average is caught up in closed form, when it is needed [D].
Shapes: V rows of the table, U rows touched by a step, d width.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of dense weights and of the rows of a table; a step costs O(U d), not O(V d).

    Args:
        dense: parameters that every step changes, by name.
        table: parameter [V, d] of which a step changes rows; None: there is none.
        decay: weight of the average in each step, in [0, 1).
    """

    def __init__(
        self, dense: list[tuple[str, nn.Parameter]], table: nn.Parameter | None, decay: float
    ) -> None:
        self.decay = decay
        self.steps = 0
        self.names = [name for name, _ in dense]
        self.parameters = [parameter for _, parameter in dense]
        self.dense = [p.detach().clone() for p in self.parameters]
        self.table = table
        self.rows = None if table is None else table.detach().clone()
        # The step after which each row's average is up to date.
        self.rows_at = None if table is None else torch.zeros(len(table), dtype=torch.int64)

    @torch.no_grad()
    def before_step(self, rows_U: Tensor) -> None:
        """Catch up rows int64 [U], each named once, that the coming step is to change."""
        if self.table is None or self.rows is None or self.rows_at is None:
            return
        now = self.table.index_select(0, rows_U)
        self.rows.index_copy_(0, rows_U, self._caught_up(rows_U, now))
        self.rows_at[rows_U.cpu()] = self.steps

    @torch.no_grad()
    def after_step(self, rows_U: Tensor) -> None:
        """Take the weights as a step has left them; rows_U as in `before_step`."""
        self.steps += 1
        share = 1.0 - float(self._kept(torch.tensor(self.steps - 1)))
        torch._foreach_lerp_(self.dense, [p.data for p in self.parameters], share)
        if self.table is None or self.rows is None or self.rows_at is None:
            return
        before, now = (t.index_select(0, rows_U) for t in (self.rows, self.table))
        self.rows.index_copy_(0, rows_U, before.lerp_(now, share))
        self.rows_at[rows_U.cpu()] = self.steps

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average in the place of the weights, and take it away again."""
        if self.steps == 0:
            yield
            return
        parameters, averages = [*self.parameters], [*self.dense]
        if self.table is not None:
            parameters.append(self.table)
            averages.append(self._whole_table())
        weights = [p.data for p in parameters]
        try:
            _put(parameters, averages)
            yield
        finally:
            _put(parameters, weights)

    def keep(self) -> None:
        """Make the average the model's weights, for good: training is over."""
        with self.in_place():
            parameters = [*self.parameters, *([] if self.table is None else [self.table])]
            averages = [p.data.clone() for p in parameters]
        _put(parameters, averages)

    def state(self) -> dict[str, Tensor]:
        """Return the average by the names of the parameters, for a checkpoint."""
        tensors = {f"average.{n}": t for n, t in zip(self.names, self.dense, strict=True)}
        if self.rows is not None and self.rows_at is not None:
            tensors |= {"average.rows": self.rows, "average.rows_at": self.rows_at}
        return tensors | {"average.steps": torch.tensor(self.steps)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the average of a checkpoint."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.steps = int(state["average.steps"])

    def _kept(self, steps: Tensor) -> Tensor:
        """Share float64 that the average after `steps` steps has in the average of now."""
        decay = torch.tensor(self.decay, dtype=torch.float64)
        return decay ** (self.steps - steps) * (1 - decay**steps) / (1 - decay**self.steps)

    def _caught_up(self, rows: Tensor | slice, now: Tensor) -> Tensor:
        """Average of rows whose weights `now` have not changed since `rows_at`."""
        assert self.rows is not None
        assert self.rows_at is not None
        if self.steps == 0:
            return now
        at = self.rows_at[rows.cpu() if isinstance(rows, Tensor) else rows]
        share = (1.0 - self._kept(at)).to(now)
        return torch.lerp(self.rows[rows], now, share[:, None])

    def _whole_table(self) -> Tensor:
        assert self.table is not None
        return self._caught_up(slice(None), self.table.data)


def _put(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
