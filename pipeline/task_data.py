"""What a task sees of the corpus, the fresh model that it trains, and how that model is ranked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.architectures import needs_times, recommender
from pipeline.corpus import Corpus, DomainInfo
from pipeline.evaluation import EmbeddingScorer, rank_targets
from pipeline.histories import EvaluationCases, HeldOutRole, evaluation_cases
from pipeline.metrics import Ranks
from pipeline.snapshots import open_vectors
from pipeline.splits import assign_roles
from pipeline.user_model_task import TaskFolders, UserModelTask
from user_model import Recommender


class TaskData:
    """What a task sees of the corpus: its domains, with items that count from 0."""

    def __init__(self, task: UserModelTask, folders: TaskFolders) -> None:
        self.task, self.folders = task, folders
        self.corpus = Corpus.open(folders.corpus)
        self.roles = assign_roles(self.corpus, task.split)
        self.domains: tuple[DomainInfo, ...] = tuple(
            domain for domain in self.corpus.domains if task.domain in (None, domain.name)
        )
        self.reads_times = needs_times(task.model, task.architecture)
        if self.reads_times:
            _check_times(task.model, self.domains)
        self.first_item = self.domains[0].first_item
        self.n_items = sum(domain.n_items for domain in self.domains)

    def cases(self, domain: DomainInfo, role: HeldOutRole) -> EvaluationCases:
        """The domain's held-out targets, with the histories that the task's model is to see."""
        return evaluation_cases(
            self.corpus,
            self.roles,
            domain.name,
            role,
            self.task.split.max_history,
            own_domain_only=not self.task.interleaved,
            with_times=self.reads_times,
        )

    def item_texts(self) -> Tensor | None:
        """Frozen text vectors float32 [n_items, d_text] of the task's items, or None."""
        if self.folders.vectors is None:
            return None
        mine = slice(self.first_item, self.first_item + self.n_items)
        return torch.from_numpy(open_vectors(self.folders.vectors, self.corpus).rows(mine))

    def item_name(self, item: int) -> str:
        """`DOMAIN:ID` of an item, by its position among the task's items."""
        place = self.first_item + item
        (domain,) = (d for d in self.domains if d.first_item <= place < d.first_item + d.n_items)
        return f"{domain.name}:{self.corpus.item_ids[place]}"

    def domain_starts(self) -> np.ndarray:
        """int64 [D + 1]: where each domain's items start, counted from the task's first item."""
        starts = [domain.first_item - self.first_item for domain in self.domains]
        return np.array([*starts, self.n_items], dtype=np.int64)

    def build(self) -> Recommender:
        """A fresh model with weights drawn from the task's seed."""
        torch.manual_seed(self.task.seed)
        task, starts = self.task, torch.from_numpy(self.domain_starts())
        return recommender(task.model, task.architecture, self.n_items, self.item_texts(), starts)

    def rank(self, model: Recommender, domain: DomainInfo, cases: EvaluationCases) -> Ranks:
        """Where the model puts each case's target among all items of the domain."""
        return self.rank_by(self.scorer(model, domain, cases), domain, cases)

    def rank_by(self, scorer: EmbeddingScorer, domain: DomainInfo, cases: EvaluationCases) -> Ranks:
        """The same, by scores that are there already."""
        return rank_targets(
            cases,
            domain.first_item,
            domain.n_items,
            scorer,
            model=self.task.model,
            mask_seen=self.task.evaluation.mask_seen,
            block_mb=self.task.evaluation.block_mb,
        )

    def scorer(
        self, model: Recommender, domain: DomainInfo, cases: EvaluationCases
    ) -> EmbeddingScorer:
        """User vectors after each case's history, against the domain's item vectors."""
        start = domain.first_item - self.first_item
        items = torch.arange(start, start + domain.n_items)
        model.eval()
        with torch.inference_mode():
            users = model.encode_histories(
                cases.offsets, cases.history - self.first_item, times=cases.times
            )
            return EmbeddingScorer(model.item_vectors(items), users)


def _check_times(model: str, domains: Sequence[DomainInfo]) -> None:
    for domain in domains:
        if domain.order == "sequence":
            raise ValueError(
                f"models: {model} reads the times of events, and the domain {domain.name} has none "
                "(order: sequence); leave it out, or take hstu instead of hstu_time, and "
                "user_model.time_gaps: false"
            )
