"""Adam's moments of a sharded module, whole and by parameter name: they fit any sharding.

ZeRO keeps them in flat buffers that are cut by the number of workers, with padding, in an order of
its own. LoRA's parameters are few, so a checkpoint holds the moments whole, and each worker cuts
out its part again: after a resume workers and ZeRO stage may be others ([D]; DeepSpeed's universal
checkpoints do as much, but are written and read as pickles).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.nn import functional as F

if TYPE_CHECKING:
    from item_llm.zero import ShardedModule

_MOMENTS = ("exp_avg", "exp_avg_sq")
_STEP = "step"


def whole_moments(sharded: ShardedModule) -> dict[str, torch.Tensor]:
    """Both moments of every trainable parameter and the number of updates; all workers must call.

    Returns:
        On the CPU: float32 of the parameter's shape as NAME.exp_avg and NAME.exp_avg_sq, and a
        scalar as `step`. Exact: what ZeRO cut is put together, nothing is computed.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    whole_by_stage_0 = sharded.module.zero_optimization_stage() == 0
    moments = {_STEP: _updates(sharded)}
    for name, parameter in sharded.named_trainable():
        for key in _MOMENTS:
            value = (
                sharded.optimizer.state[parameter][key]
                if whole_by_stage_0
                else safe_get_full_optimizer_state(parameter, key)
            )
            moments[f"{name}.{key}"] = value.detach().cpu().clone()
    return moments


def load_moments(sharded: ShardedModule, saved: Mapping[str, torch.Tensor]) -> None:
    """Give this worker's optimizer its part of what `whole_moments` returned."""
    for shard in sharded.optimizer_shards():
        zeros = {key: torch.zeros_like(shard) for key in _MOMENTS}
        sharded.optimizer.state[shard] = {_STEP: saved[_STEP].clone(), **zeros}
    stage = sharded.module.zero_optimization_stage()
    if stage in (1, 2):
        # DeepSpeed's link from a parameter to its part of the flat state; made by the first step.
        sharded.module.optimizer._lazy_init_hp_params_optimizer_state()
    for name, parameter in sharded.named_trainable():
        for key in _MOMENTS:
            _set_moment(sharded, parameter, key, saved[f"{name}.{key}"].to(sharded.device))


def _set_moment(sharded: ShardedModule, parameter: Any, key: str, whole: torch.Tensor) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    stage = sharded.module.zero_optimization_stage()
    if stage == 0:
        sharded.optimizer.state[parameter][key].copy_(whole)
    elif stage == 3:  # cut here: DeepSpeed's own cut has no room for the padding of the last part
        part = parameter.partition_numel()
        padded = F.pad(whole.flatten(), (0, part * dist.get_world_size() - whole.numel()))
        mine = padded[part * dist.get_rank() :][:part]
        safe_set_local_optimizer_state(parameter, mine, key)
    else:
        safe_set_full_optimizer_state(parameter, whole, key)


def _updates(sharded: ShardedModule) -> torch.Tensor:
    """How often Adam has stepped: the same for all parameters."""
    states = [sharded.optimizer.state[shard] for shard in sharded.optimizer_shards()]
    steps = {float(state[_STEP]) for state in states}
    assert len(steps) == 1, f"parameters were updated unequally often: {steps}"
    return torch.tensor(steps.pop())
