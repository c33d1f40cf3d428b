"""`Hydra.step` as a program of torch.export, for runtimes that have no hydrarec.

    program = export_step(model)
    torch.export.save(program, "step.pt2")
    user, state = program.module()(vectors, state.to_dict())

The program holds plain operations of torch alone, takes any number of users, and goes on from the
dict of tensors that it returns. With time_gaps it takes the events' times as a third argument.

Shapes: n users, d model width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from user_model.hydra import Hydra
from user_model.streaming import HydraState

_EXAMPLE_USERS = 3  # any number but 0 and 1, for which torch.export makes programs of their own


class HydraStep(nn.Module):
    """A Hydra whose call is a step: tensors in, tensors out.

    Args:
        model: whose weights are copied; its ops are torch's own.
    """

    def __init__(self, model: Hydra) -> None:
        super().__init__()
        self.model = Hydra(model.config.model_copy(update={"backend": "torch"}))
        self.model.load_state_dict(model.state_dict())
        self.model.eval().requires_grad_(False)

    def forward(
        self, vectors_nd: Tensor, state: dict[str, Tensor], times_n: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the users' vectors [n, d] after the event, and the state: see `Hydra.step`."""
        after, users_nd = self.model.step(HydraState.from_dict(state), vectors_nd, times_n)
        return users_nd, after.to_dict()


def export_step(model: Hydra) -> Any:
    """A torch.export.ExportedProgram of the model's step, for any number of users, 2 or more."""
    step, state = HydraStep(model), model.init_state(_EXAMPLE_USERS).to_dict()
    state = {name: tensor.detach() for name, tensor in state.items()}
    vectors = torch.randn(_EXAMPLE_USERS, model.config.dim)
    users = torch.export.Dim("users", min=2)
    rows = {0: users}
    arguments: list[Any] = [vectors, state]
    shapes: list[Any] = [rows, dict.fromkeys(state, rows)]
    if model.reads_times:
        arguments.append(torch.zeros(_EXAMPLE_USERS, dtype=torch.int64))
        shapes.append(rows)
    else:
        arguments.append(None)
        shapes.append(None)
    return torch.export.export(step, tuple(arguments), dynamic_shapes=tuple(shapes))
