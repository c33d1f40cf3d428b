"""What training tells while it runs and when it ends, and where it stands in between."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self


class StoppedError(RuntimeError):
    """A training was told to stop; it goes on from the checkpoint that it wrote last."""


@dataclass(frozen=True)
class StepRecord:
    """One training step: number from 1, its epoch from 1, mean loss, learning rate, tokens."""

    step: int
    epoch: int
    loss: float
    lr: float
    tokens: int


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: number, from 1.
        step: steps done since training began.
        loss: mean training loss over the targets of the epoch.
        validation: value of the validation metric, None where the epoch was not validated.
        seconds: time spent training in this epoch, without validation.
        lr: learning rate of its last step.
        tokens_per_second: targets learned from in a second, over all workers.
        padding_share: share of padding in what the model computes, of the epoch's first batch
            alone, since all are packed alike; None where the model does not tell.
        cpu_seconds: what `seconds` is of this process's CPU time, which other programs disturb
            least; None in checkpoints from before it was recorded.
    """

    epoch: int
    step: int
    loss: float
    validation: float | None
    seconds: float
    lr: float
    tokens_per_second: float
    padding_share: float | None = None  # absent in checkpoints from before it was recorded
    cpu_seconds: float | None = None


@dataclass(frozen=True)
class TrainingResult:
    """What came of a training.

    Attributes:
        epochs: epochs done.
        steps: steps done.
        best_epoch: epoch whose weights the model has now.
        best_validation: their validation metric, None without validation.
        stopped_early: whether patience ended it.
        seconds: time of all epochs, without validation.
        history: a record for each epoch.
        skipped_steps: steps that were left out because their loss or gradient was no number.
    """

    epochs: int
    steps: int
    best_epoch: int
    best_validation: float | None
    stopped_early: bool
    seconds: float
    history: tuple[EpochRecord, ...]
    skipped_steps: int = 0


@dataclass
class Progress:
    """Where training stands; all of it goes into a checkpoint.

    Attributes:
        epoch: epochs completed.
        batch: batches of the current epoch that are done.
        step: steps done since training began.
        tokens: targets of the current epoch that are done.
        loss_sum: sum of their losses.
        seconds: time spent on them.
        cpu_seconds: CPU time of this process spent on them.
        best_epoch: the epoch with the best validation so far (the last one without validation).
        best_validation: its metric.
        stale: validations since.
        history: the completed epochs.
        skipped_steps: steps left out since training began.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    tokens: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    best_epoch: int = 0
    best_validation: float | None = None
    stale: int = 0
    history: list[EpochRecord] = field(default_factory=list)
    skipped_steps: int = 0  # absent in checkpoints from before steps could be left out

    def close_epoch(
        self, validation: float | None, lr: float, padding_share: float | None
    ) -> tuple[EpochRecord, bool]:
        """End the current epoch; return its record, and whether it is the best so far."""
        self.epoch += 1
        speed = self.tokens / max(self.seconds, 1e-9)
        loss = self.loss_sum / max(self.tokens, 1)
        record = EpochRecord(
            self.epoch, self.step, loss, validation, self.seconds, lr, speed, padding_share,
            self.cpu_seconds,
        )  # fmt: skip
        self.history.append(record)
        self.batch, self.tokens, self.loss_sum = 0, 0, 0.0
        self.seconds, self.cpu_seconds = 0.0, 0.0
        return record, self._is_best(validation)

    def _is_best(self, validation: float | None) -> bool:
        if validation is None:
            return False
        if self.best_validation is not None and validation <= self.best_validation:
            self.stale += 1
            return False
        self.best_epoch, self.best_validation, self.stale = self.epoch, validation, 0
        return True

    def result(self, *, stopped_early: bool) -> TrainingResult:
        """Sum up a training that has ended."""
        return TrainingResult(
            self.epoch, self.step, self.best_epoch or self.epoch, self.best_validation,
            stopped_early, sum(r.seconds for r in self.history), tuple(self.history),
            self.skipped_steps,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Read what `to_json` gave."""
        history = [EpochRecord(**record) for record in fields["history"]]
        return cls(**{**fields, "history": history})
