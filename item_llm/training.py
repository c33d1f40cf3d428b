"""Fine-tuning of the item LLM: next-item InfoNCE through LoRA, with accelerate and DeepSpeed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, Field

from item_llm.adapter import attach_lora, save_adapter
from item_llm.base_models import PretrainedModel
from item_llm.checkpoints import CheckpointFolder
from item_llm.contrastive import ContrastiveModel, TextTable, bounded_scale
from item_llm.encoder import ItemEncoder
from item_llm.finetune_result import FinetuneResult
from item_llm.folders import sha256_of_json
from item_llm.held_out import held_out_metrics, mean_cosine
from item_llm.objective import gather_rows, next_item_loss
from item_llm.pairs import ItemPairs, PairSampler, pairs_of_texts
from item_llm.zero import ShardedModule, process_group, worker_device

if TYPE_CHECKING:
    from item_llm.config import ItemLLMConfig

_log = logging.getLogger(__name__)

# Where a training is computed, not what it learns: a resumed one may differ in these.
_SHARDING = {"zero_stage", "stage3_persistence_threshold", "checkpoint_every"}

OnStep = Callable[[int, float, float], None]


class FinetuningConfig(BaseModel):
    """Schedule, objective and ZeRO stage of the item LLM's fine-tuning; defaults are ours [D]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(default=1.0, gt=0, description="Passes over the training pairs.")
    max_steps: int | None = Field(
        default=400, ge=1, description="Stop after this many optimizer steps; null: epochs alone."
    )
    pairs_per_step: int = Field(
        default=64, ge=2, description="Pairs in one micro-batch, over all workers together."
    )
    gradient_accumulation: int = Field(
        default=1, ge=1, description="Micro-batches in one optimizer step."
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate.")
    warmup_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the steps that warm up; cosine after it."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay.")
    gradient_clip: float = Field(default=1.0, gt=0, description="Largest global gradient norm.")
    temperature: float = Field(
        default=0.05, gt=0, description="InfoNCE temperature (the first one, if it is learned)."
    )
    learn_temperature: bool = Field(default=True, description="Train the temperature too.")
    symmetric: bool = Field(
        default=True, description="Average next-given-item with item-given-next."
    )
    gather_negatives: bool = Field(
        default=True, description="Use all workers' items as negatives, not only one's own."
    )
    domain_temperature: float = Field(
        default=2.0,
        ge=1,
        description="A batch's domain is drawn in proportion to pairs ** (1 / this).",
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        default=2, description="DeepSpeed ZeRO: 1 shards optimizer states, 2 gradients, 3 weights."
    )
    stage3_persistence_threshold: int = Field(
        default=10_000, ge=0, description="At stage 3, weights smaller than this stay whole."
    )
    chunk_texts: int = Field(
        default=16, ge=1, description="Texts in one forward pass, sorted by length."
    )
    checkpoint_every: int = Field(
        default=100, ge=1, description="Optimizer steps between two checkpoints."
    )
    seed: int = Field(default=0, ge=0, description="Seeds batches and initial weights.")


def total_steps(config: FinetuningConfig, pairs: int) -> int:
    """Optimizer steps for this many training pairs."""
    batch = config.pairs_per_step * config.gradient_accumulation
    steps = max(1, math.ceil(config.epochs * pairs / batch))
    return min(steps, config.max_steps) if config.max_steps is not None else steps


def learning_rate(config: FinetuningConfig, step: int, steps: int) -> float:
    """Linear warm-up to the peak, then a cosine to zero; `step` counts from 0."""
    warmup = math.ceil(config.warmup_fraction * steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


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
) -> FinetuneResult:
    """Train a LoRA adapter (and [ITEM]) on next-item pairs; every worker calls this alike.

    Runs in the caller's process group, or torchrun's, or alone. Batches are drawn for all workers
    together and then shared out, so that their number does not change what is learned.

    Args:
        config: `lora` must be set and `adapter` must not.
        pairs: training pairs; positions in `texts`.
        held_out_pairs: pairs of users that `pairs` has nothing of; may be empty.
        texts: text of each item.
        output_dir: becomes the adapter's folder, written by worker 0.
        workers: expected size of the process group.
        on_step: called on every worker with the step (from 1), the loss of the whole batch and the
            learning rate.
        checkpoint_dir: where to write checkpoints and resume from the newest; shared by all
            workers. None: no checkpoints.

    Raises:
        ValueError: contradictory settings, no usable pairs, a loss that is not finite, or a
            checkpoint of another training.
    """
    if config.lora is None or config.adapter is not None:
        raise ValueError(
            "fine-tuning needs `lora` and no `adapter`; got "
            f"lora {config.lora}, adapter {config.adapter}: a frozen or pinned encoder trains none"
        )
    if config.encoder.dtype != "float32":
        raise ValueError(
            f"encoder.dtype is {config.encoder.dtype}; fine-tune in float32: the adapter can be "
            "used with either afterwards (`adapter: PATH`)"
        )
    if config.finetuning.pairs_per_step % workers:
        raise ValueError(
            f"finetuning.pairs_per_step is {config.finetuning.pairs_per_step}, which {workers} "
            "workers cannot share equally: choose a multiple"
        )
    started = time.monotonic()
    with process_group(workers):
        run = _Finetuning(config, pairs, held_out_pairs, texts, checkpoint_dir)
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
    ) -> None:
        assert config.lora is not None
        self.config = config.finetuning
        self.workers, self.rank = dist.get_world_size(), dist.get_rank()
        torch.manual_seed(self.config.seed)
        self.encoder = ItemEncoder(config.encoder, PretrainedModel.find(config.encoder.base))
        attach_lora(self.encoder, config.lora)
        self.model = ContrastiveModel(
            self.encoder, self.config.temperature, learn=self.config.learn_temperature
        )
        self.model.to(worker_device()).train_adapter_only()
        self.pairs, pair_texts = pairs_of_texts(pairs, texts)
        self.held_out, held_out_texts = pairs_of_texts(held_out, texts)
        self.table = TextTable(self.encoder, pair_texts)
        self.held_out_table = TextTable(self.encoder, held_out_texts)
        self.sampler = PairSampler(
            self.pairs.domain,
            self.config.pairs_per_step,
            self.config.domain_temperature,
            self.config.seed,
        )
        self.steps = total_steps(self.config, len(self.pairs))
        self.checkpoints = (
            CheckpointFolder(checkpoint_dir, self._identity(config, pair_texts))
            if checkpoint_dir is not None
            else None
        )

    def __call__(self, output_dir: Path, on_step: OnStep | None, started: float) -> FinetuneResult:
        frozen = self.held_out_table.encode_all(self.model)
        sharded, done = self._shard()
        try:
            for step in range(done, self.steps):
                loss, rate = self._step(sharded, step)
                if on_step is not None:
                    on_step(step + 1, loss, rate)
                if self.checkpoints is not None and self._due(step + 1):
                    self.checkpoints.save(step + 1, sharded)
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
        sharded = ShardedModule(self.model, self.config, self.config.pairs_per_step // self.workers)
        if self.checkpoints is not None and checkpoint is not None:
            self.checkpoints.load_optimizer(checkpoint, sharded)
        return sharded, done

    def _step(self, sharded: ShardedModule, step: int) -> tuple[float, float]:
        """One optimizer step; the loss of the whole batch and the learning rate."""
        torch.manual_seed((self.config.seed * 1_000_003 + step) * self.workers + self.rank)
        rate = learning_rate(self.config, step, self.steps)
        accumulate = self.config.gradient_accumulation
        total = torch.zeros(1, device=sharded.device)
        for micro in range(accumulate):
            batch = self.sampler.batch(step * accumulate + micro)
            mine = self.pairs[np.array_split(batch, self.workers)[self.rank]]
            encoded, scale = self.table.encode_pairs(sharded.module, mine, self.config.chunk_texts)
            loss = next_item_loss(
                encoded,
                scale,
                symmetric=self.config.symmetric,
                gather=self.config.gather_negatives,
            )
            total += loss.detach() / (accumulate * self.workers)
            sharded.backward(loss, last=micro == accumulate - 1, learning_rate=rate)
        dist.all_reduce(total)
        if not math.isfinite(total.item()):
            raise ValueError(
                f"the item LLM's loss is {total.item()} at step {step + 1}; "
                "lower finetuning.learning_rate or raise finetuning.temperature"
            )
        return total.item(), rate

    def _due(self, done: int) -> bool:
        return done % self.config.checkpoint_every == 0 or done == self.steps

    def _save(self, folder: Path, sharded: ShardedModule) -> tuple[str, dict[str, torch.Tensor]]:
        """Worker 0 writes the adapter; all learn its hash."""
        parameters = sharded.whole_parameters()
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
        rows = np.stack([self.pairs.source, self.pairs.target, self.pairs.domain]).tolist()
        settings = config.model_dump(mode="json", exclude={"finetuning": _SHARDING})
        return {
            "settings": sha256_of_json(settings),
            "reading": sha256_of_json(self.encoder.reading),
            "pairs": sha256_of_json([rows, pair_texts]),
        }


def _from_all(value: int) -> list[int]:
    """A number of every worker, in rank order."""
    numbers: list[int] = gather_rows(torch.tensor([value], device=worker_device())).tolist()
    return numbers
