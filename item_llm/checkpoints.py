"""Checkpoints of a fine-tuning: safetensors alone, one file a worker, manifest last.

parameters.safetensors     trainable parameters, whole
optimizer-R.safetensors    worker R's shard of Adam's moments
manifest.json              step, workers, ZeRO stage, what was trained, checksums
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from item_llm.folders import MANIFEST, publish, read_manifest, write_manifest

if TYPE_CHECKING:
    from item_llm.zero import ShardedModule

_KIND = "item LLM checkpoint"


class CheckpointFolder:
    """The checkpoints of one fine-tuning in a folder that all workers see.

    `identity` says what is trained and how (configuration, pairs, workers): a checkpoint of
    another training raises.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.identity = dict(identity)

    def latest(self) -> Path | None:
        """The newest finished checkpoint; unfinished ones are passed over."""
        finished = [p for p in self.folder.glob("step-*") if (p / MANIFEST).is_file()]
        return max(finished, key=lambda p: int(p.name.removeprefix("step-")), default=None)

    def load_parameters(self, checkpoint: Path, model: nn.Module) -> int:
        """Put saved parameters into `model`, before it is sharded.

        Returns:
            The number of steps done.

        Raises:
            ValueError: a damaged checkpoint, or one of another training.
        """
        from safetensors.torch import load_file

        manifest = read_manifest(checkpoint, _KIND)
        for name, expected in self.identity.items():
            got = manifest["identity"].get(name)
            if got != expected:
                raise ValueError(
                    f"{checkpoint}: {name} is {got}, this training has {expected}; resume with "
                    f"the same settings, or delete {self.folder} to start again"
                )
        saved = load_file(checkpoint / "parameters.safetensors")
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.data.copy_(saved[name])
        return int(manifest["step"])

    def load_optimizer(self, checkpoint: Path, sharded: ShardedModule) -> None:
        """Put this worker's saved moments into its optimizer, once the model is sharded."""
        from safetensors.torch import load_file

        saved = load_file(checkpoint / f"optimizer-{dist.get_rank()}.safetensors")
        for i, shard in enumerate(sharded.optimizer_shards()):
            sharded.optimizer.state[shard] = {
                name: saved[f"{i}.{name}"].to(shard.device if name != "step" else "cpu")
                for name in ("step", "exp_avg", "exp_avg_sq")
            }

    def save(self, step: int, sharded: ShardedModule) -> None:
        """Write a checkpoint and drop older ones; every worker must call it."""
        from safetensors.torch import save_file

        staging, target = self.folder / f".step-{step}", self.folder / f"step-{step}"
        rank = dist.get_rank()
        if rank == 0:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        parameters = sharded.whole_parameters()
        dist.barrier()
        save_file(_moments(sharded), staging / f"optimizer-{rank}.safetensors")
        if rank == 0:
            save_file(parameters, staging / "parameters.safetensors")
        dist.barrier()
        if rank == 0:
            write_manifest(staging, _KIND, {"step": step, "identity": self.identity})
            publish(staging, target, replace=True)
            for old in self.folder.glob("step-*"):
                if old != target:
                    shutil.rmtree(old)


def _moments(sharded: ShardedModule) -> dict[str, torch.Tensor]:
    """Flat Adam state of this worker: {shard number}.{name}."""
    return {
        f"{i}.{name}": value.detach().cpu().contiguous()
        for i, shard in enumerate(sharded.optimizer_shards())
        for name, value in sharded.optimizer.state[shard].items()
    }
