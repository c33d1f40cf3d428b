"""Training of a recommender: epochs of packed batches, validation, early stop, checkpoints."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from user_model.batching import Batch, Batches, Histories, Int64
from user_model.checkpoint import copy_state
from user_model.distributed import Workers
from user_model.items import ItemTable
from user_model.non_finite import NameItem, NonFiniteLossError, culprits
from user_model.optimizer import learning_rate
from user_model.padding import padding_share
from user_model.progress import EpochRecord, Progress, StepRecord, StoppedError, TrainingResult
from user_model.recommender import Recommender
from user_model.resume import TrainingCheckpoints, has_checkpoint, training_identity
from user_model.step import TrainingStep, domains_of
from user_model.training_config import TrainingConfig

Validate = Callable[[Recommender], float]
_ASKED_EVERY = 4  # steps from one question whether to stop to the next: workers must agree

_log = logging.getLogger(__name__)


def train(
    model: Recommender,
    histories: Histories,
    domain_starts: Int64,
    config: TrainingConfig,
    *,
    seed: int,
    workers: Workers | None = None,
    validate: Validate | None = None,
    checkpoint_dir: Path | None = None,
    on_checkpoint: Callable[[], None] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
    domain_names: Sequence[str] | None = None,
    name_item: NameItem | None = None,
    times: Int64 | None = None,
    until_epoch: int | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainingResult:
    """Train `model` in place and leave the weights of the best validated epoch in it.

    The same (model, histories, config, seed) give the same weights whatever the number of workers,
    up to the order in which gradients are added, and bit for bit on one CPU worker, whether or not
    training was interrupted and resumed from `checkpoint_dir`.

    Args:
        model: recommender; with several workers, worker 0's weights are the ones that count.
        histories: training rows as CSR arrays (offsets int64 [U + 1], items [E], oldest first);
            the same on every worker.
        domain_starts: int64 [D + 1], the first item of each domain, and the number of items.
        config: settings.
        seed: seed of the order, the negatives and the dropout.
        workers: this process among those that train; None: alone.
        validate: called on every worker with the model in evaluation mode, without gradients;
            larger is better, and worker 0's value counts. None: the last weights stay.
        checkpoint_dir: folder of checkpoints, shared by the workers; a training found there is
            continued, its completed epochs not reported again.
        on_checkpoint: called on worker 0 after each checkpoint, before anyone goes on.
        on_epoch: told of each epoch, on every worker.
        on_step: told of each step, on every worker.
        domain_names: names of the domains for error messages.
        name_item: an item's name by its position, for the same.
        times: int64 [E], unix seconds of the events, for a model that reads times.
        until_epoch: pause once so many epochs are done, on the schedule of `config.epochs`; the
            next call goes on from `checkpoint_dir`. None: to the end.
        should_stop: asked now and then, on every worker; once one says so, a checkpoint is written
            and the training raises.

    Returns:
        what came of it; the model is in evaluation mode.

    Raises:
        ValueError: data, settings or workers do not fit together, or a pause without checkpoints.
        NonFiniteLossError: the loss or its gradient is not finite more often than
            `config.max_skipped_steps`, or a validation is; the message names step, domains and
            items.
        CheckpointError: all checkpoints are damaged, or of another training.
        StoppedError: `should_stop` said so; the same call goes on.
    """
    if until_epoch is not None and checkpoint_dir is None:
        raise ValueError(
            f"until_epoch: got {until_epoch} without checkpoint_dir, from which the next call "
            "would go on; give a folder, or lower epochs to end there"
        )
    workers = workers if workers is not None else Workers()
    workers.check()
    batches = Batches(
        histories, domain_starts, batch_tokens=config.batch_tokens, seed=seed,
        last_only=config.positions == "last", skip_share=config.skip_share,
        max_history=config.max_history, domain_temperature=config.domain_temperature,
        min_epoch_steps=config.min_epoch_steps, times=times,
    )  # fmt: skip
    if int(domain_starts[-1]) > model.items.n_items:
        raise ValueError(
            f"domain_starts: ends at {int(domain_starts[-1])}, expected at most the "
            f"{model.items.n_items} items of the model's table; build the table for this corpus"
        )
    model.items.mark_seen(torch.from_numpy(batches.items))
    progress = Progress()
    fresh = not has_checkpoint(checkpoint_dir)
    if fresh:
        _start_from_histories(model.items, histories, domain_starts, workers, progress)
    workers.from_first([p.data for p in model.parameters()])
    if (channel := model.items.channel) is not None:
        workers.from_first([b for b in (channel.neighbours, channel.directions) if b.numel()])
        if fresh and channel.is_to_turn():
            channel.turn_texts()
    step = TrainingStep(model, batches, config, seed=seed, workers=workers)
    checkpoints = None
    if checkpoint_dir is not None:
        identity = training_identity(step, batches, config, seed)
        checkpoints = TrainingCheckpoints(checkpoint_dir, identity, on_checkpoint)
    training = _Training(
        step, batches, checkpoints, validate, on_epoch, on_step, domain_names, name_item, progress
    )
    training.should_stop = should_stop
    with torch.random.fork_rng(devices=[]):
        return training.run(until_epoch)


def _start_from_histories(
    items: ItemTable,
    histories: Histories,
    domain_starts: Int64,
    workers: Workers,
    progress: Progress,
) -> None:
    """What the table has from the histories themselves, on worker 0.

    Its ids' start, its neighbours, and how the directions of its texts count. The first epoch
    bears the time.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    starts = np.append(domain_starts[:-1], items.n_items)
    channel = items.channel
    # scipy is imported where it is needed: a tenth of the package's import, which all would pay.
    if workers.rank == 0 and items.ids_from_histories:
        from user_model.cooccurrence import cooccurrence_vectors

        items.start_ids(*cooccurrence_vectors(histories, starts, items.dim))
    if workers.rank == 0 and channel is not None and (width := channel.neighbours.shape[1]):
        from user_model.neighbours import neighbour_vectors

        channel.set_neighbours(neighbour_vectors(histories, starts, width), items.neighbour_share)
    if workers.rank == 0 and channel is not None and channel.is_to_turn():
        from user_model.text_correlations import correlated_directions

        channel.directions.copy_(correlated_directions(channel.columns, histories, starts))
    progress.seconds += time.perf_counter() - began
    progress.cpu_seconds += time.process_time() - cpu_began


class _Training:
    """The loop over epochs and its state."""

    def __init__(
        self,
        step: TrainingStep,
        batches: Batches,
        checkpoints: TrainingCheckpoints | None,
        validate: Validate | None,
        on_epoch: Callable[[EpochRecord], None] | None,
        on_step: Callable[[StepRecord], None] | None,
        domain_names: Sequence[str] | None,
        name_item: NameItem | None,
        progress: Progress,
    ) -> None:
        self.step, self.batches, self.checkpoints = step, batches, checkpoints
        self.validate, self.on_epoch, self.on_step = validate, on_epoch, on_step
        self.domain_names, self.name_item = domain_names, name_item
        self.config, self.workers, self.model = step.config, step.workers, step.model
        self.progress = progress
        self.should_stop: Callable[[], bool] | None = None
        self.best: dict[str, Tensor] | None = None
        self.lr = 0.0

    def run(self, until_epoch: int | None) -> TrainingResult:
        epochs = self.config.epochs
        last = epochs if until_epoch is None else min(epochs, until_epoch)
        restored = self.checkpoints.load(self.step) if self.checkpoints is not None else None
        if restored is not None:
            self.progress, self.best = restored
        while self.progress.epoch < last and not self._exhausted():
            self._epoch()
            if self._told_to_stop():
                self._stop()
        if self.best is not None:
            self.model.load_state_dict(self.best)
        elif self.step.average is not None:
            self.step.average.keep()
        self.model.eval()
        return self.progress.result(stopped_early=self._exhausted())

    def _exhausted(self) -> bool:
        return self.progress.stale >= self.config.patience

    def _epoch(self) -> None:
        progress = self.progress
        epoch = self.batches.epoch(progress.epoch)
        self.model.train()
        for number in range(progress.batch, len(epoch)):
            began, cpu_began = time.perf_counter(), time.process_time()
            batch = epoch[number]
            loss = self._learn(batch, number, len(epoch))
            progress.batch, progress.step = number + 1, progress.step + 1
            if loss is not None:
                progress.tokens += batch.n_targets
                progress.loss_sum += loss * batch.n_targets
            progress.seconds += time.perf_counter() - began
            progress.cpu_seconds += time.process_time() - cpu_began
            self._after_step(loss, batch, last=number + 1 == len(epoch))
        if progress.tokens == 0:
            raise NonFiniteLossError(
                f"loss: no step of epoch {progress.epoch + 1} had a finite one, "
                f"{progress.skipped_steps} steps were left out so far; lower lr or "
                "max_skipped_steps"
            )
        padding = padding_share(self.model.sequence_model, torch.from_numpy(epoch[0].cu_seqlens))
        with self.step.averaged():
            record, is_best = progress.close_epoch(self._validated(), self.lr, padding)
            if is_best:
                self.best = copy_state(self.model)
        self._save()
        if self.on_epoch is not None:
            self.on_epoch(record)

    def _learn(self, batch: Batch, number: int, n_batches: int) -> float | None:
        """One step; its loss, or None where it was left out."""
        progress = self.progress
        done = (progress.epoch + number / n_batches) / self.config.epochs
        self.lr = learning_rate(self.config, progress.step, done)
        try:
            return self.step.run(batch, progress.epoch, number, self.lr)
        except NonFiniteLossError as error:
            sentence = self._explain(batch, error)
            if progress.skipped_steps >= self.config.max_skipped_steps:
                raise NonFiniteLossError(sentence) from error
            progress.skipped_steps += 1
            most = self.config.max_skipped_steps
            _log.warning("%s; left out (%d of %d)", sentence, progress.skipped_steps, most)
            return None

    def _explain(self, batch: Batch, error: NonFiniteLossError) -> str:
        numbers = domains_of(batch)
        names = self.domain_names
        domains = [names[d] if names is not None else f"domain {d}" for d in numbers]
        loss, norm = error.args
        return (
            f"loss: got {loss} (norm of the gradient {norm}) at step {self.progress.step + 1}, "
            f"epoch {self.progress.epoch + 1}, with targets of {', '.join(domains)}, expected a "
            f"finite number; not finite: {culprits(self.model, batch, self.name_item)}; lower lr, "
            "raise temperature, or encode these items again"
        )

    def _after_step(self, loss: float | None, batch: Batch, *, last: bool) -> None:
        progress, every = self.progress, self.config.checkpoint_steps
        if self.on_step is not None and loss is not None:
            record = StepRecord(progress.step, progress.epoch + 1, loss, self.lr, batch.n_tokens)
            self.on_step(record)
        if every is not None and progress.step % every == 0 and not last:
            self._save()
        if not last and progress.step % _ASKED_EVERY == 0 and self._told_to_stop():
            self._save()
            self._stop()

    def _told_to_stop(self) -> bool:
        return self.should_stop is not None and self.workers.any(self.should_stop())

    def _stop(self) -> NoReturn:
        where = f"step {self.progress.step}, epoch {self.progress.epoch + 1}"
        raise StoppedError(f"training was told to stop and did, after {where}")

    def _validated(self) -> float | None:
        number = self.progress.epoch + 1
        last = number == self.config.epochs
        if self.validate is None or (number % self.config.validate_every and not last):
            return None
        self.model.eval()
        with torch.no_grad():
            value = self.workers.agree(float(self.validate(self.model)))
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"validation: got {value} after epoch {number}, expected a finite number; lower lr"
            )
        return value

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        if self.workers.rank == 0:
            self.checkpoints.save(self.step, self.progress, self.best)
        self.workers.wait()
