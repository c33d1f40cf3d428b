"""Checkpoints of a fine-tuning: safetensors alone, whole tensors, manifest last.

parameters.safetensors    trainable parameters
optimizer.safetensors     Adam's moments of each of them, and the number of updates
manifest.json             step, what was trained, checksums

Nothing in them depends on the number of workers or the ZeRO stage, so either may change. The last
two are kept, so that one that was damaged costs the steps since the one before it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from item_llm.folders import MANIFEST, publish, read_manifest, write_manifest
from item_llm.optimizer_state import load_moments, whole_moments

if TYPE_CHECKING:
    from item_llm.zero import ShardedModule

_log = logging.getLogger(__name__)

_KIND = "item LLM checkpoint"
_KEPT = 2
_NONE, _ALL_DAMAGED = -1, -2  # what worker 0 tells in the place of a step


class CheckpointFolder:
    """The checkpoints of one fine-tuning in a folder that all workers see.

    `identity` says what is trained and how (configuration, pairs): a checkpoint of another training
    raises. `on_saved` is called by worker 0 once a checkpoint is complete and older ones are gone.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        on_saved: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder
        self.identity = dict(identity)
        self._on_saved = on_saved

    def latest(self) -> Path | None:
        """The newest whole checkpoint; None where there was never one.

        Every worker must call it; worker 0 decides, and sets aside what is damaged.

        Raises:
            ValueError: all of them are damaged.
        """
        found = torch.tensor([self._newest_whole() if dist.get_rank() == 0 else _NONE])
        if dist.get_backend() == "nccl":
            found = found.cuda()
        dist.broadcast(found, src=0)
        step = int(found)
        if step == _ALL_DAMAGED:
            raise ValueError(
                f"{self.folder}: every checkpoint is damaged, they are called damaged-step-N now; "
                "remove the folder to begin anew"
            )
        return None if step == _NONE else self.folder / f"step-{step}"

    def _newest_whole(self) -> int:
        """The step to go on from, or why there is none."""
        for orphan in self.folder.glob(".step-*"):  # a kill came while it was written
            shutil.rmtree(orphan)
        for checkpoint in reversed(self._in_order()):
            try:
                read_manifest(checkpoint, _KIND)
                self._sweep(_step_of(checkpoint))
                return _step_of(checkpoint)
            except ValueError as error:
                aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
                shutil.rmtree(aside, ignore_errors=True)
                checkpoint.rename(aside)
                _log.warning("%s; moved to %s, the checkpoint before it is used", error, aside)
        return _ALL_DAMAGED if any(self.folder.glob("damaged-step-*")) else _NONE

    def _sweep(self, newest: int) -> None:
        """Remove older ones that a process had half removed when it was killed."""
        for checkpoint in self._in_order():
            if _step_of(checkpoint) < newest and not (checkpoint / MANIFEST).is_file():
                shutil.rmtree(checkpoint)

    def _in_order(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), key=_step_of)

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
        """Put the saved moments into this worker's optimizer, once the model is sharded."""
        from safetensors.torch import load_file

        load_moments(sharded, load_file(checkpoint / "optimizer.safetensors"))

    def save(self, step: int, sharded: ShardedModule) -> None:
        """Write a checkpoint (worker 0), drop all but the last ones; every worker must call it."""
        parameters, moments = sharded.whole_parameters(), whole_moments(sharded)
        if dist.get_rank() == 0:
            self._write(step, parameters, moments)
        dist.barrier()

    def _write(
        self, step: int, parameters: dict[str, torch.Tensor], moments: dict[str, torch.Tensor]
    ) -> None:
        from safetensors.torch import save_file

        staging, target = self.folder / f".step-{step}", self.folder / f"step-{step}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        save_file(parameters, staging / "parameters.safetensors")
        save_file(moments, staging / "optimizer.safetensors")
        write_manifest(staging, _KIND, {"step": step, "identity": self.identity})
        publish(staging, target, replace=True)
        for old in self._in_order()[:-_KEPT]:
            (old / MANIFEST).unlink(missing_ok=True)  # first: half of it is no checkpoint
            shutil.rmtree(old)
        if self._on_saved is not None:
            self._on_saved()


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))
