"""One optimizer step: a worker's pairs, in one part or in several, to gradients of the whole loss.

In several parts the loss is still that of all pairs of all workers against each other. A first pass
without gradients gives all vectors, the loss its gradient with respect to them, and then part after
part is run again and its vectors' gradient taken further into the weights. (Gao et al. 2021,
arXiv 2101.06983, call it GradCache.)
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist

from item_llm.batches import Batches, Part
from item_llm.cached_negatives import CachedNegatives
from item_llm.contrastive import TextTable
from item_llm.finetuning_config import FinetuningConfig
from item_llm.objective import EncodedPairs, next_item_loss
from item_llm.zero import ShardedModule


class TrainingStep:
    """Runs steps of one training.

    Args:
        config: objective and seed.
        batches: what each step learns from.
        table: the texts that pairs are positions in.
        cached: further negatives; None: none.
        sharded: the model and its optimizer.
    """

    def __init__(
        self,
        config: FinetuningConfig,
        batches: Batches,
        table: TextTable,
        cached: CachedNegatives | None,
        sharded: ShardedModule,
    ) -> None:
        self.config, self.batches, self.table = config, batches, table
        self.cached, self.sharded = cached, sharded
        self.workers, self.rank = dist.get_world_size(), dist.get_rank()

    def run(self, step: int, learning_rate: float) -> float:
        """Learn from the pairs of all workers; return their mean loss, the same on all workers."""
        parts = self.batches.parts(step, self.workers, self.rank)
        if len(parts) == 1:
            encoded, scale = self._encode(parts[0], step, 0)
            loss = self._loss(encoded, scale, step)
            self.sharded.backward(loss, last=True, learning_rate=learning_rate)
        else:
            loss = self._run_in_parts(parts, step, learning_rate)
        total = loss.detach().reshape(1) / self.workers
        dist.all_reduce(total)
        return total.item()

    def culprits(self, step: int) -> str:
        """Which texts of a step's pairs have vectors that are no numbers; every worker calls it."""
        parts = self.batches.parts(step, 1, 0)
        ids = np.unique(np.concatenate([(*p.pairs.source, *p.pairs.target) for p in parts]))
        vectors = self.table.encode_texts(self.sharded.module, ids)
        bad = ids[~np.isfinite(vectors).all(axis=1)]
        if len(bad) in (0, len(ids)):
            return f"{'all' if len(bad) else 'none'} of its {len(ids)} texts have such a vector"
        named = ", ".join(repr(self.table.text(int(i))[:60]) for i in bad[:3])
        return f"{len(bad)} of its {len(ids)} texts have such a vector: {named}"

    def _run_in_parts(self, parts: list[Part], step: int, learning_rate: float) -> torch.Tensor:
        with torch.no_grad():
            first = [self._encode(part, step, i) for i, part in enumerate(parts)]
        whole = [encoded.detached() for encoded, _ in first]
        scale = first[0][1].clone().requires_grad_()
        loss = self._loss(EncodedPairs.joined(whole), scale, step)
        leaves = [scale, *(vectors for encoded in whole for vectors in encoded.vectors)]
        scale_gradient, *gradients = torch.autograd.grad(loss, leaves, materialize_grads=True)
        for i, part in enumerate(parts):
            encoded, scale = self._encode(part, step, i)
            flow = _flow(encoded.vectors, gradients)
            gradients = gradients[len(encoded.vectors) :]
            # DeepSpeed takes the mean over parts, which are summands here.
            self.sharded.backward(
                flow * len(parts) + scale * scale_gradient,
                last=i == len(parts) - 1,
                learning_rate=learning_rate,
            )
        return loss

    def _encode(self, part: Part, step: int, number: int) -> tuple[EncodedPairs, torch.Tensor]:
        """Encode a part; a second run of it drops the same units of LoRA's input."""
        seed = (self.config.seed * 1_000_003 + step) * self.workers + self.rank
        torch.manual_seed(seed * self.config.gradient_accumulation + number)
        return self.table.encode_pairs(self.sharded.module, part, self.config.chunk_texts)

    def _loss(self, encoded: EncodedPairs, scale: torch.Tensor, step: int) -> torch.Tensor:
        cached = self.cached.of_step(step, self.sharded.device) if self.cached else None
        return next_item_loss(
            encoded,
            scale,
            symmetric=self.config.symmetric and self.config.objective == "pairs",
            gather=self.config.gather_negatives,
            cached=cached,
            count=self.batches.predictions(step) / self.workers,
        )


def _flow(outputs: list[torch.Tensor], gradients: list[torch.Tensor]) -> torch.Tensor:
    """A scalar whose gradient with respect to output i is gradient i."""
    return torch.stack(
        [(out * gradient).sum() for out, gradient in zip(outputs, gradients, strict=False)]
    ).sum()
