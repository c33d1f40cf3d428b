"""The figure that early stopping, the best epoch and the choice of settings look at."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist

from pipeline.corpus import DomainInfo
from pipeline.evaluation import shard
from pipeline.histories import EvaluationCases, Ints, gather_ranges
from pipeline.metrics import ndcg
from pipeline.task_data import TaskData
from pipeline.user_model_task import UserModelTask
from user_model import Recommender, Workers

CHOSEN_BY_K = 10  # the NDCG cut-off


class Validation:
    """NDCG@10 on the validation targets, the mean over domains; equal on all workers.

    Attributes:
        by_domain: the latest figure of each domain that has targets.
    """

    def __init__(self, data: TaskData, workers: Workers) -> None:
        self._data, self._workers = data, workers
        self.by_domain: dict[str, float] = {}
        # Nobody of a new domain (train_people: 0) is looked at before the test.
        self._domains = [d for d in data.domains if data.task.split.people_of(d.name) > 0]
        self.cases = [data.cases(domain, "validation") for domain in self._domains]
        self._shares = [cases for _, cases in self.shares(None)]

    def shares(self, most: int | None) -> Iterator[tuple[DomainInfo, EvaluationCases]]:
        """Of each domain the cases of this worker: `most` in all, or what the config allows."""
        given = self._data.task.architecture.validation_users
        limits = [limit for limit in (most, given) if limit is not None]
        for domain, cases in zip(self._domains, self.cases, strict=True):
            yield domain, _share(cases, min(limits, default=None), self._data.task, self._workers)

    def __call__(self, model: Recommender) -> float:
        """The figure of `model` as it is now; every worker has to ask."""
        sums_D2 = torch.zeros(len(self._shares), 2, dtype=torch.float64)
        for row, (domain, cases) in enumerate(zip(self._domains, self._shares, strict=True)):
            if len(cases.targets):
                gains = ndcg(self._data.rank(model, domain, cases), CHOSEN_BY_K)
                sums_D2[row] = torch.tensor([gains.sum(), len(gains)])
        if self._workers.size > 1:
            dist.all_reduce(sums_D2)
        pairs = zip(self._domains, sums_D2.tolist(), strict=True)
        self.by_domain = {domain.name: total / n for domain, (total, n) in pairs if n}
        with_targets = sums_D2[sums_D2[:, 1] > 0]
        return float((with_targets[:, 0] / with_targets[:, 1]).mean())


def _share(
    cases: EvaluationCases, most: int | None, task: UserModelTask, workers: Workers
) -> EvaluationCases:
    """The share of one worker in the cases, or in `most` of them."""
    rows = np.arange(len(cases.targets))
    if most is not None and len(rows) > most:
        drawn = np.random.default_rng([task.seed, most]).choice(rows, most, replace=False)
        rows = np.sort(drawn)
    return _take(cases, rows[shard(len(rows), workers.rank, workers.size)])


def _take(cases: EvaluationCases, rows: Ints) -> EvaluationCases:
    history, offsets = gather_ranges(cases.offsets[rows], cases.offsets[rows + 1])
    seen, seen_offsets = gather_ranges(cases.seen_offsets[rows], cases.seen_offsets[rows + 1])
    return EvaluationCases(
        domain=cases.domain,
        users=cases.users[rows],
        offsets=offsets,
        history=cases.history[history],
        seen_offsets=seen_offsets,
        seen=cases.seen[seen],
        targets=cases.targets[rows],
        times=None if cases.times is None else cases.times[history],
    )
