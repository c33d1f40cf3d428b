"""One training step: a worker's part of a global batch to the sum of gradients over workers.

Only the items that the batch names (inputs, targets, negatives) are computed, and of the id table
only their rows get a gradient.
Shapes: V items of the corpus, U items of the global batch, M items of this worker's part, T tokens
of the part, N slots (T and the holes of the tiles), d width.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from user_model.averaging import WeightAverage
from user_model.batching import Batch, Batches, Int64
from user_model.distributed import Workers
from user_model.dropout import keyed_dropout
from user_model.losses import loss_negatives, loss_tile, sampled_loss
from user_model.negatives import NegativeSampler
from user_model.non_finite import NonFiniteLossError
from user_model.ops.dropout import mix, mix_integers
from user_model.optimizer import DenseAdamW, RowAdamW
from user_model.recommender import Recommender
from user_model.training_config import TrainingConfig


@dataclass(frozen=True)
class StepInput:
    """What the model sees of a batch, as tensors.

    Attributes:
        touched: int64 [U], items that any worker names, ascending.
        local: int64 [M], rows of `touched` that this worker names.
        inputs: int64 [T], rows of `local`.
        positive: int64 [N], rows of `local`; negative: int64 [G, K], the same.
        tokens: int64 [N], the token of a slot; slots: int64 [n], the slot of each of the n
            tokens that are learned from.
        cu_seqlens: int64 [S + 1].
    """

    touched: Tensor
    local: Tensor
    inputs: Tensor
    positive: Tensor
    negative: Tensor
    tokens: Tensor
    slots: Tensor
    cu_seqlens: Tensor


class RowIndex:
    """Numbers the items of a step, in time linear in the corpus with a tiny constant."""

    def __init__(self, n_items: int) -> None:
        self._named = np.zeros(n_items, dtype=bool)
        self._row = np.zeros(n_items, dtype=np.int64)

    def unique(self, *items: Int64) -> Int64:
        """Return the items named in any of the arrays, ascending, each once."""
        for part in items:
            self._named[part] = True
        found = np.flatnonzero(self._named)
        self._named[found] = False
        return found

    def rows(self, table: Int64, *items: Int64) -> list[Int64]:
        """Return, for each array, the rows of `table` that hold its items."""
        self._row[table] = np.arange(len(table))
        return [self._row[part] for part in items]


class TrainingStep:
    """Runs steps: forward, backward, exchange, clipping, update.

    Args:
        model: recommender in training mode.
        batches: where the batches come from (for the domains' bounds and the training events).
        config: settings.
        seed: seed of negatives and dropout.
        workers: this process among those that train.
    """

    def __init__(
        self,
        model: Recommender,
        batches: Batches,
        config: TrainingConfig,
        *,
        seed: int,
        workers: Workers,
    ) -> None:
        self.model, self.config, self.seed, self.workers = model, config, seed, workers
        self.device = next(model.parameters()).device
        self.sampler = NegativeSampler.build(
            batches.items, batches.domain_starts, count=loss_negatives(config),
            tile=loss_tile(config), popularity_share=config.popularity_share, seed=seed,
            in_batch_share=config.in_batch_share,
            targets=batches.learned_targets() if config.in_batch_share > 0.0 else None,
            unseen=config.unseen_negatives, other_domains_share=config.other_domains_share,
        )  # fmt: skip
        self.log_q = (
            torch.from_numpy(np.log(np.maximum(self.sampler.probabilities, 1e-20))).float()
            if config.log_q
            else None
        )
        self.index = RowIndex(model.items.n_items)
        self.dense = [
            (n, p) for n, p in model.named_parameters() if p.requires_grad and n != "items.ids"
        ]
        self.optimizer = DenseAdamW(
            self.dense, betas=config.betas, weight_decay=config.weight_decay
        )
        self.rows = self._row_optimizer(model.items.ids)
        self.average: WeightAverage | None = None
        if config.ema_decay > 0.0:
            table = None if self.rows is None else self.rows.table
            self.average = WeightAverage(self.dense, table, config.ema_decay)

    def run(self, batch: Batch, epoch: int, step: int, lr: float) -> float:
        """Learn from one global batch; return its mean loss over all workers.

        Raises:
            NonFiniteLossError: loss or gradient is not finite; nothing has been updated.
        """
        part = batch.part(self.workers.rank, self.workers.size)
        given = self._prepare(batch, part, epoch, step)
        key = mix_integers(self.seed, epoch, step)
        # Modules that draw from torch's generator repeat their draws after a resume.
        torch.manual_seed(mix_integers(key, self.workers.rank) & (2**63 - 1))
        rows, total = self._backward(given, part, batch.n_targets, key)
        gradients = self._gradients(rows, given)
        self.workers.sum([*gradients, total])
        norm = self._clip(gradients)
        if not (torch.isfinite(total) and torch.isfinite(norm)):
            raise NonFiniteLossError(float(total), float(norm))
        self._update(gradients, given, lr)
        return float(total)

    def averaged(self) -> AbstractContextManager[None]:
        """Have the weights that count in the model: their average, if there is one."""
        return nullcontext() if self.average is None else self.average.in_place()

    def _row_optimizer(self, ids: nn.Parameter | None) -> RowAdamW | None:
        if ids is None or not ids.requires_grad:
            return None
        decay = self.config.id_weight_decay
        return RowAdamW(ids, betas=self.config.betas, weight_decay=decay)

    def _prepare(self, batch: Batch, part: Batch, epoch: int, step: int) -> StepInput:
        tiles = self.sampler.tiles(batch, part, epoch, step)
        local = self.index.unique(part.items, part.targets, tiles.items)
        targets = part.targets[tiles.tokens] if part.n_tokens else tiles.tokens
        inputs, positive, negative = self.index.rows(local, part.items, targets, tiles.items)
        touched, position = local, np.arange(len(local))
        if self.workers.size > 1:
            everyone = self.sampler.draw(batch, epoch, step)
            touched = self.index.unique(batch.items, batch.targets, everyone)
            (position,) = self.index.rows(touched, local)
        arrays = touched, position, inputs, positive, negative, tiles.tokens, tiles.slots
        tensors = [torch.from_numpy(a).to(self.device) for a in (*arrays, part.cu_seqlens)]
        return StepInput(*tensors)

    def _backward(
        self, given: StepInput, part: Batch, n_targets: int, key: int
    ) -> tuple[Tensor | None, Tensor]:
        """Return the leaf of id rows [M, d], its gradient filled in, and this part's loss."""
        items_M = given.touched[given.local]
        ids = self.model.items.ids
        rows = None if ids is None else ids.detach().index_select(0, items_M)
        if rows is not None and self.rows is not None:
            rows.requires_grad_()
        for _, parameter in self.dense:
            parameter.grad = None
        if part.n_tokens == 0:
            return rows, torch.zeros((), device=self.device)
        losses_n = self._losses(given, part, items_M, rows, key)
        total = losses_n.sum() / n_targets
        total.backward()
        return rows, total.detach()

    def _losses(
        self, given: StepInput, part: Batch, items_M: Tensor, rows: Tensor | None, key: int
    ) -> Tensor:
        """Return the loss of each token that is learned from, [n]."""
        tokens = torch.arange(
            part.first_token, part.first_token + part.n_tokens, device=self.device
        )
        table_Md = self.model.items.compose(items_M, rows, key)
        times_T = None if part.times is None else torch.from_numpy(part.times).to(self.device)
        with keyed_dropout(self.model.sequence_model, mix(tokens + mix_integers(key, 1))):
            inputs_Td = functional.embedding(given.inputs, table_Md)
            users_Td = self.model.user_vectors_of(
                inputs_Td, given.cu_seqlens, times_T, items_T=items_M[given.inputs]
            )
        losses_N = sampled_loss(
            functional.embedding(given.tokens, users_Td),
            self.model.item_vectors_of(table_Md, items_M),
            given.positive,
            given.negative,
            self.config,
            log_q_V=None if self.log_q is None else self.log_q.to(self.device)[items_M],
        )
        return losses_N.index_select(0, given.slots)

    def _gradients(self, rows: Tensor | None, given: StepInput) -> list[Tensor]:
        """Return the gradients of dense weights, then of the touched id rows [U, d]."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for _, p in self.dense]
        if rows is not None and self.rows is not None:
            found = torch.zeros_like(rows) if rows.grad is None else rows.grad
            if self.workers.size > 1:
                everyone = found.new_zeros(len(given.touched), found.shape[1])
                found = everyone.index_copy_(0, given.local, found)
            gradients.append(found)
        return gradients

    def _clip(self, gradients: list[Tensor]) -> Tensor:
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        if float(norm) > self.config.clip:
            torch._foreach_mul_(gradients, self.config.clip / float(norm))
        return norm

    def _update(self, gradients: list[Tensor], given: StepInput, lr: float) -> None:
        if self.average is not None:
            self.average.before_step(given.touched)
        self.optimizer.step(gradients[: len(self.dense)], lr)
        if self.rows is not None:
            self.rows.step(given.touched, gradients[-1], lr)
        if self.average is not None:
            self.average.after_step(given.touched)


def domains_of(batch: Batch) -> list[int]:
    """Return the domains that a batch has targets of."""
    return [int(d) for d in np.unique(batch.domains)]
