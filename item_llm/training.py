"""Fine-tuning of the item LLM: next-item InfoNCE through LoRA, with accelerate and DeepSpeed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from item_llm.adapter import attach_lora, save_adapter
from item_llm.base_models import PretrainedModel
from item_llm.batches import batches_of
from item_llm.cached_negatives import CachedNegatives
from item_llm.checkpoints import CheckpointFolder
from item_llm.contrastive import ContrastiveModel, TextTable, bounded_scale
from item_llm.encoder import ItemEncoder
from item_llm.finetune_result import FinetuneResult, StoppedError
from item_llm.finetuning_config import SHARDING_FIELDS, learning_rate, total_steps
from item_llm.folders import sha256_of_json
from item_llm.held_out import held_out_metrics, mean_cosine
from item_llm.objective import gather_rows
from item_llm.pairs import ItemPairs, pairs_of_texts
from item_llm.training_step import TrainingStep
from item_llm.zero import ShardedModule, process_group, worker_device

if TYPE_CHECKING:
    from item_llm.config import ItemLLMConfig

_log = logging.getLogger(__name__)

OnStep = Callable[[int, float, float], None]
MakeSequenceModel = Callable[[int], nn.Module]


def finetune(
    config: ItemLLMConfig,
    pairs: ItemPairs,
    held_out_pairs: ItemPairs,
    texts: Sequence[str],
    output_dir: Path,
    *,
    workers: int = 1,
    on_step: OnStep | None = None,
    checkpoint_dir: Path | None = None,
    on_checkpoint: Callable[[], None] | None = None,
    sequence_model: MakeSequenceModel | None = None,
    domain_names: Sequence[str] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> FinetuneResult:
    """Train a LoRA adapter (and [ITEM]) on next-item pairs; every worker calls this alike.

    Runs in the caller's process group, or torchrun's, or alone. Batches are drawn for all workers
    together and then shared out, so that their number does not change what is learned.

    Args:
        config: `lora` must be set and `adapter` must not; dtype mixed trains in float32, bfloat16
            with float32 copies of what is trained, from ZeRO stage 1 on.
        pairs: training pairs; positions in `texts`.
        held_out_pairs: pairs of users that `pairs` has nothing of; may be empty.
        texts: text of each item.
        output_dir: becomes the adapter's folder, written by worker 0.
        workers: expected size of the process group.
        on_step: called on every worker with the step (from 1), the loss of the whole batch and the
            learning rate.
        checkpoint_dir: where to write checkpoints and resume from the newest; shared by all
            workers. None: no checkpoints.
        on_checkpoint: called on worker 0 after each checkpoint, before anyone goes on.
        sequence_model: makes the user model of the objective 'histories' for a width d: packed
            item vectors [T, d] and seams int64 [S + 1] in, user vectors [T, d] out.
        domain_names: of the domains that the pairs number, for messages.
        should_stop: asked after each step, on every worker; once one says so, a checkpoint is
            written and the training raises.

    Raises:
        ValueError: contradictory settings, no usable pairs, a loss or gradient that is not finite
            more often than `max_skipped_steps`, or a checkpoint of another training.
        StoppedError: `should_stop` said so; the same call goes on.
    """
    if config.lora is None or config.adapter is not None:
        raise ValueError(
            "fine-tuning needs `lora` and no `adapter`; got "
            f"lora {config.lora}, adapter {config.adapter}: a frozen or pinned encoder trains none"
        )
    if config.encoder.dtype == "bfloat16" and config.finetuning.zero_stage == 0:
        raise ValueError(
            "encoder.dtype is bfloat16 and finetuning.zero_stage 0, which keeps no float32 copy of "
            "what is trained: 8 bits lose the small updates of a fine-tuning; set zero_stage to "
            "1, 2 or 3, or dtype to float32 or mixed (which trains in float32)"
        )
    config.finetuning.check_shares(workers)
    if config.finetuning.objective == "histories" and sequence_model is None:
        raise ValueError(
            "finetuning.objective is 'histories', and no sequence_model was given to read them: "
            "pass one, or use the objective 'pairs'"
        )
    started = time.monotonic()
    with process_group(workers):
        run = _Finetuning(
            config, pairs, held_out_pairs, texts, checkpoint_dir, on_checkpoint, sequence_model
        )
        run.domain_names, run.should_stop = domain_names, should_stop
        return run(output_dir, on_step, started)


class _Finetuning:
    """One training on one worker, from its pairs to its result."""

    def __init__(
        self,
        config: ItemLLMConfig,
        pairs: ItemPairs,
        held_out: ItemPairs,
        texts: Sequence[str],
        checkpoint_dir: Path | None,
        on_checkpoint: Callable[[], None] | None,
        sequence_model: MakeSequenceModel | None,
    ) -> None:
        assert config.lora is not None
        self.config = config.finetuning
        self.domain_names: Sequence[str] | None = None
        self.should_stop: Callable[[], bool] | None = None
        self.skipped = 0
        self.workers, self.rank = dist.get_world_size(), dist.get_rank()
        torch.manual_seed(self.config.seed)
        self.encoder = ItemEncoder(config.encoder, PretrainedModel.find(config.encoder.base))
        attach_lora(self.encoder, config.lora)
        self.model = ContrastiveModel(
            self.encoder,
            self.config.temperature,
            learn=self.config.learn_temperature,
            recompute=self.config.gradient_checkpointing,
            sequence_model=self._reader(sequence_model),
        )
        self.model.to(worker_device()).train_adapter_only()
        self.pairs, pair_texts = pairs_of_texts(pairs, texts)
        self.held_out, held_out_texts = pairs_of_texts(held_out, texts)
        self.table = TextTable(self.encoder, pair_texts)
        self.held_out_table = TextTable(self.encoder, held_out_texts)
        self.batches = batches_of(self.pairs, self.config)
        self.steps = total_steps(self.config, len(self.pairs))
        self.checkpoints = (
            CheckpointFolder(checkpoint_dir, self._identity(config, pair_texts), on_checkpoint)
            if checkpoint_dir is not None
            else None
        )

    def __call__(self, output_dir: Path, on_step: OnStep | None, started: float) -> FinetuneResult:
        frozen = self.held_out_table.encode_all(self.model)
        cached = self._cached_negatives()
        sharded, done = self._shard()
        try:
            one_step = TrainingStep(self.config, self.batches, self.table, cached, sharded)
            for step in range(done, self.steps):
                told = self._step(one_step, step)
                if on_step is not None and told is not None:
                    on_step(step + 1, *told)
                stops = step + 1 < self.steps and self._told_to_stop()
                if self.checkpoints is not None and (stops or self._due(step + 1)):
                    self.checkpoints.save(step + 1, sharded)
                if stops:
                    raise StoppedError(f"fine-tuning was told to stop and did, after {step + 1}")
            tuned = self.held_out_table.encode_all(sharded.module)
            digest, parameters = self._save(output_dir, sharded)
            log_scale = parameters.get("log_scale", self.model.log_scale.detach().cpu())
            return FinetuneResult(
                base=self.encoder.config.base,
                adapter=str(output_dir),
                adapter_sha256=digest,
                steps=self.steps,
                pairs=len(self.pairs),
                held_out_pairs=len(self.held_out),
                before=held_out_metrics(frozen, self.held_out, self.config.temperature),
                after=held_out_metrics(tuned, self.held_out, self.config.temperature),
                mean_cosine=mean_cosine(frozen, tuned) if len(frozen) else None,
                temperature=1 / bounded_scale(log_scale).item(),
                zero_stage=self.config.zero_stage,
                workers=self.workers,
                optimizer_elements=_from_all(sharded.optimizer_elements()),
                optimizer_elements_unsharded=2 * sharded.trainable_elements(),
                weight_elements=_from_all(sharded.weight_elements()),
                seconds=time.monotonic() - started,
                skipped_steps=self.skipped,
            )
        finally:
            sharded.close()

    def _shard(self) -> tuple[ShardedModule, int]:
        """Resume from the newest checkpoint, if there is one; the engine and the steps done."""
        checkpoint = self.checkpoints.latest() if self.checkpoints is not None else None
        done = 0
        if self.checkpoints is not None and checkpoint is not None:
            done = self.checkpoints.load_parameters(checkpoint, self.model)
            _log.info("resuming the item LLM's fine-tuning at step %d of %d", done, self.steps)
        half = self.encoder.config.dtype == "bfloat16"
        sharded = ShardedModule(self.model, self.config, bfloat16=half)
        if self.checkpoints is not None and checkpoint is not None:
            self.checkpoints.load_optimizer(checkpoint, sharded)
        return sharded, done

    def _reader(self, make: MakeSequenceModel | None) -> nn.Module | None:
        if make is None or self.config.objective != "histories":
            return None
        return make(self.encoder.dim)

    def _cached_negatives(self) -> CachedNegatives | None:
        """Further negatives with vectors of the encoder as it is now: untuned."""
        count = self.config.cached_negatives
        if not count:
            return None
        domains = np.array([self.batches.domain(step) for step in range(self.steps)])
        cached = CachedNegatives(self.pairs, domains, count, self.config.seed)
        cached.encode(self.table, self.model)
        return cached

    def _step(self, one_step: TrainingStep, step: int) -> tuple[float, float] | None:
        """One optimizer step; the loss of the whole batch and the learning rate.

        None: the step was left out.
        """
        rate = learning_rate(self.config, step, self.steps)
        loss = one_step.run(step, rate)
        if math.isfinite(loss) and one_step.sharded.gradient_is_finite():
            return loss, rate
        sentence = self._explain(one_step, step, loss)
        # A loss that is no number beside a gradient that is: the weights have moved already.
        if one_step.sharded.gradient_is_finite() or self.skipped >= self.config.max_skipped_steps:
            raise ValueError(sentence)
        self.skipped += 1
        _log.warning(
            "%s; left out (%d of %d)", sentence, self.skipped, self.config.max_skipped_steps
        )
        return None

    def _explain(self, one_step: TrainingStep, step: int, loss: float) -> str:
        """What is wrong with a step; every worker must call it."""
        domain = self.batches.domain(step)
        name = self.domain_names[domain] if self.domain_names is not None else f"domain {domain}"
        gradient = "finite" if one_step.sharded.gradient_is_finite() else "not finite"
        return (
            f"the item LLM's loss is {loss} and its gradient {gradient} at step {step + 1}, with "
            f"pairs of {name}; {one_step.culprits(step)}; "
            "lower finetuning.learning_rate or raise finetuning.temperature"
        )

    def _told_to_stop(self) -> bool:
        return self.should_stop is not None and any(_from_all(int(self.should_stop())))

    def _due(self, done: int) -> bool:
        return done % self.config.checkpoint_every == 0 or done == self.steps

    def _save(self, folder: Path, sharded: ShardedModule) -> tuple[str, dict[str, torch.Tensor]]:
        """Worker 0 writes the adapter; all learn its hash."""
        parameters = sharded.whole_parameters()
        if bad := [name for name, value in parameters.items() if not value.isfinite().all()]:
            raise ValueError(
                f"{len(bad)} weights of the adapter, the first {bad[0]}, are no numbers after the "
                "last step; lower finetuning.learning_rate"
            )
        digest = torch.zeros(32, dtype=torch.uint8, device=sharded.device)
        if self.rank == 0:
            inside = "encoder."
            trained = {
                name.removeprefix(inside): value
                for name, value in parameters.items()
                if name.startswith(inside)
            }
            _, hexadecimal = save_adapter(self.encoder, trained, folder)
            digest.copy_(torch.tensor(list(bytes.fromhex(hexadecimal)), dtype=torch.uint8))
        dist.broadcast(digest, src=0)
        return bytes(digest.tolist()).hex(), parameters

    def _identity(self, config: ItemLLMConfig, pair_texts: list[str]) -> dict[str, Any]:
        columns = (self.pairs.source, self.pairs.target, self.pairs.domain, self.pairs.row)
        rows = [column.tolist() for column in columns if column is not None]
        settings = config.model_dump(mode="json", exclude={"finetuning": set(SHARDING_FIELDS)})
        return {
            "settings": sha256_of_json(settings),
            "reading": sha256_of_json(self.encoder.reading),
            "pairs": sha256_of_json([rows, pair_texts]),
            "sequence_model": repr(self.model.sequence_model),
        }


def _from_all(value: int) -> list[int]:
    """A number of every worker, in rank order."""
    numbers: list[int] = gather_rows(torch.tensor([value], device=worker_device())).tolist()
    return numbers
