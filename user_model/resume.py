"""Checkpoints of a training in flight: weights, optimiser, average, best weights, and its place.

A checkpoint is a folder step-N with a manifest. The last two are kept, so that one that was damaged
costs the steps since the one before it, not the training. The order of the data, the negatives and
the dropout are functions of (seed, epoch, step), and torch's generator is seeded anew at every
step, so no generator state needs saving.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from user_model.batching import Batches
from user_model.checkpoint import (
    MANIFEST,
    CheckpointError,
    load_state,
    read_record,
    read_tensors,
    save_tensors,
)
from user_model.config_keys import key_fields
from user_model.progress import Progress
from user_model.step import TrainingStep
from user_model.training_config import TrainingConfig

_log = logging.getLogger(__name__)

_KEPT = 2
_NONE, _ALL_DAMAGED = -1, -2  # what worker 0 tells in the place of a step
_MODEL, _BEST, _OPTIMIZER = "model.safetensors", "best.safetensors", "optimizer.safetensors"


def training_identity(
    step: TrainingStep, batches: Batches, config: TrainingConfig, seed: int
) -> dict[str, Any]:
    """Return what must be equal for a checkpoint to be continued: settings, seed, data, model."""
    data = hashlib.sha256()
    for array in (batches.items, batches.windows.starts, batches.domain_starts):
        data.update(array.tobytes())
    if batches.times is not None:
        data.update(batches.times.tobytes())
    shapes = sorted((n, list(t.shape)) for n, t in step.model.state_dict().items())
    return {
        "config": key_fields(config),
        "seed": seed,
        "data": data.hexdigest(),
        "model": hashlib.sha256(repr(shapes).encode()).hexdigest(),
    }


def has_checkpoint(folder: Path | None) -> bool:
    """Whether a training would go on from a checkpoint in this folder."""
    return folder is not None and bool(_complete_in(folder))


def _complete_in(folder: Path) -> list[Path]:
    return sorted(p.parent for p in folder.glob(f"step-*/{MANIFEST}"))


def _newest_whole(folder: Path) -> int:
    """The step to go on from, or why there is none; sets aside what is damaged, sweeps the rest."""
    _sweep(folder.glob(".step-*"))
    for checkpoint in sorted(folder.glob("step-*"), reverse=True):
        try:
            read_record(checkpoint)
            _sweep(p for p in folder.glob("step-*") if p < checkpoint and not _is_complete(p))
            return int(checkpoint.name.removeprefix("step-"))
        except CheckpointError as error:
            aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
            shutil.rmtree(aside, ignore_errors=True)
            checkpoint.rename(aside)
            _log.warning("%s; it was moved to %s, the checkpoint before it is used", error, aside)
    return _ALL_DAMAGED if any(folder.glob("damaged-step-*")) else _NONE


def _is_complete(checkpoint: Path) -> bool:
    return (checkpoint / MANIFEST).is_file()


def _sweep(orphans: Iterable[Path]) -> None:
    """Remove what a process had half written, or half removed, when it was killed."""
    for orphan in list(orphans):
        shutil.rmtree(orphan)


class TrainingCheckpoints:
    """The checkpoints of one training.

    Args:
        folder: where they stand, a folder each.
        identity: what `training_identity` gives; a checkpoint of another is refused.
        on_saved: called once a checkpoint is complete and those before it are gone.
    """

    def __init__(
        self,
        folder: Path,
        identity: dict[str, Any],
        on_saved: Callable[[], None] | None = None,
    ) -> None:
        self.folder, self.identity, self._on_saved = folder, identity, on_saved

    def save(self, step: TrainingStep, progress: Progress, best: dict[str, Tensor] | None) -> None:
        """Write a checkpoint, then remove all but the last ones."""
        optimizer = step.optimizer.state()
        if step.rows is not None:
            optimizer |= step.rows.state()
        if step.average is not None:
            optimizer |= step.average.state()
        files = {_MODEL: step.model.state_dict(), _OPTIMIZER: optimizer}
        if best is not None:
            files[_BEST] = best
        record = {"identity": self.identity, "progress": progress.to_json()}
        target = self.folder / f"step-{progress.step:09d}"
        save_tensors(target, files, record)
        for old in _complete_in(self.folder)[:-_KEPT]:
            (old / MANIFEST).unlink()
            shutil.rmtree(old)
        if self._on_saved is not None:
            self._on_saved()

    def load(self, step: TrainingStep) -> tuple[Progress, dict[str, Tensor] | None] | None:
        """Restore the newest whole checkpoint into `step`; None where there was never one.

        Every worker must call it; worker 0 decides which one it is.

        Returns:
            where training stood, and the best weights so far.

        Raises:
            CheckpointError: all of them are damaged, or it is of another training.
        """
        workers = step.workers
        number = int(workers.agree(_newest_whole(self.folder) if workers.rank == 0 else _NONE))
        if number == _ALL_DAMAGED:
            raise CheckpointError(
                f"{self.folder}: every checkpoint is damaged, they are called damaged-step-N now; "
                "remove the folder to begin anew"
            )
        if number == _NONE:
            return None
        folder = self.folder / f"step-{number:09d}"
        record = read_record(folder)
        self._check(record["identity"], folder)
        load_state(step.model, read_tensors(folder, _MODEL), str(folder / _MODEL))
        state = read_tensors(folder, _OPTIMIZER)
        step.optimizer.load_state(state)
        if step.rows is not None:
            step.rows.load_state(state)
        if step.average is not None:
            step.average.load_state(state)
        best = read_tensors(folder, _BEST) if (folder / _BEST).is_file() else None
        return Progress.from_json(record["progress"]), best

    def _check(self, identity: dict[str, Any], folder: Path) -> None:
        different = [k for k, v in self.identity.items() if identity.get(k) != v]
        if different:
            raise CheckpointError(
                f"{folder}: the checkpoint is of a training with another {', '.join(different)}; "
                "remove the folder to begin anew, or go back to what it was made with"
            )
