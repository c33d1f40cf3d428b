"""Training and ranking of one user model: what runs on the workers, with no word of Ray.

A task names the model (hydra_joint, sasrec ...), the domains it sees, and the folders it reads.
A model trained alone sees one domain, and its items count from 0; the joint model sees all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.architectures import Architecture, recommender
from pipeline.artifacts import write_json
from pipeline.config import TIMED_MODELS, HydraModelConfig, ModelName
from pipeline.corpus import Corpus, DomainInfo
from pipeline.evaluation import EmbeddingScorer, EvaluationConfig, rank_targets, shard
from pipeline.examples import save_examples
from pipeline.histories import (
    EvaluationCases,
    HeldOutRole,
    Ints,
    TrainingHistories,
    evaluation_cases,
    gather_ranges,
    training_histories,
)
from pipeline.leaks import check_no_leak
from pipeline.metrics import Ranks, ndcg
from pipeline.ranks_file import save_ranks
from pipeline.snapshots import open_vectors
from pipeline.splits import SplitConfig, assign_roles
from pipeline.tracking.records import Figures
from user_model import (
    EpochRecord,
    Recommender,
    TrainingConfig,
    TrainingResult,
    Workers,
    train,
)
from user_model.checkpoint import load_weights, save_weights

_CHOSEN_BY_K = 10  # the NDCG cut-off that early stopping looks at
WEIGHTS = "weights"
CURVE = "curve.json"

# done, total, unit, remark, and the epoch's figures for the trackers
Report = Callable[[float, float, str, str, Figures], None]


class UserModelTask(BaseModel):
    """One model to train and to rank with.

    Attributes:
        model: Its name in the results.
        domain: The one domain it is trained on, or None for all of them together.
        split: Which events train, choose and test.
        architecture: The model and its training.
        evaluation: How it is ranked.
        seed: Of weights, batches and negatives.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName
    domain: str | None
    split: SplitConfig
    architecture: Architecture
    evaluation: EvaluationConfig
    seed: int

    @property
    def training(self) -> TrainingConfig:
        """The training settings that count for this task."""
        if self.domain is None and isinstance(self.architecture, HydraModelConfig):
            return self.architecture.joint_training()
        return self.architecture.training

    @property
    def interleaved(self) -> bool:
        """Whether a history holds events of several domains."""
        architecture = self.architecture
        return (
            self.domain is None
            and isinstance(architecture, HydraModelConfig)
            and architecture.interleave
        )

    def training_recipe(self) -> dict[str, Any]:
        """What decides the trained weights, beside the corpus and the vectors."""
        architecture = self.architecture.model_dump(
            mode="json", exclude={"training", "joint", "backend", "interleave"}
        )
        return {
            "model": self.model,
            "domain": self.domain,
            "interleaved": self.interleaved,
            "split": self.split.model_dump(mode="json"),
            "architecture": architecture,
            "training": self.training.model_dump(mode="json", exclude={"checkpoint_steps"}),
            "mask_seen": self.evaluation.mask_seen,
            "seed": self.seed,
        }

    def ranking_recipe(self) -> dict[str, Any]:
        """What decides the ranks, beside the weights: not the cut-offs, not the block size."""
        return {"model": self.model, "mask_seen": self.evaluation.mask_seen}


class TaskFolders(BaseModel):
    """Where a task's inputs stand: the corpus and, for models with text, the item vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: Path
    vectors: Path | None


class TaskData:
    """What a task sees of the corpus: its domains, with items that count from 0."""

    def __init__(self, task: UserModelTask, folders: TaskFolders) -> None:
        self.task, self.folders = task, folders
        self.corpus = Corpus.open(folders.corpus)
        self.roles = assign_roles(self.corpus, task.split)
        self.domains: tuple[DomainInfo, ...] = tuple(
            domain for domain in self.corpus.domains if task.domain in (None, domain.name)
        )
        self.reads_times = task.model in TIMED_MODELS
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

    def domain_starts(self) -> np.ndarray:
        """int64 [D + 1]: where each domain's items start, counted from the task's first item."""
        starts = [domain.first_item - self.first_item for domain in self.domains]
        return np.array([*starts, self.n_items], dtype=np.int64)

    def build(self) -> Recommender:
        """A fresh model with weights drawn from the task's seed."""
        torch.manual_seed(self.task.seed)
        return recommender(self.task.model, self.task.architecture, self.n_items, self.item_texts())

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


def train_user_model(
    data: TaskData, workers: Workers, output: Path, scratch: Path, report: Report
) -> dict[str, Any]:
    """Train one model and write its best weights and its curve to `output` (rank 0).

    Checkpoints go to `scratch`; a second call with the same scratch resumes from the last one.
    Under the split `refit` the number of epochs is chosen on the strict split, and then a fresh
    model is trained for so many with the validation events as targets too.

    Returns:
        Facts for the run card: parameters, epochs, the validation figure.
    """
    task, training = data.task, data.task.training
    chosen = None
    if task.split.kind == "refit":
        strict = task.model_copy(update={"split": task.split.model_copy(update={"kind": "strict"})})
        on_strict = TaskData(strict, data.folders)
        _, chosen = _fit(on_strict, training, workers, scratch / "strict", report)
        training = training.model_copy(update={"epochs": chosen.best_epoch})
    model, result = _fit(
        data, training, workers, scratch / "fit", report, validated=task.split.kind != "refit"
    )
    counts = model.parameter_counts()
    history = (chosen or result).history
    if workers.rank == 0:
        save_weights(output / WEIGHTS, model, {"model": task.model, "domain": task.domain})
        write_json(output / CURVE, [_point(record) for record in history])
    return {
        "parameters": {"total": counts.total, "non_embedding": counts.non_embedding},
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "validation_ndcg@10": (chosen or result).best_validation,
    }


def _fit(
    data: TaskData,
    training: TrainingConfig,
    workers: Workers,
    scratch: Path,
    report: Report,
    *,
    validated: bool = True,
) -> tuple[Recommender, TrainingResult]:
    model = data.build()
    names = [domain.name for domain in data.domains]
    histories = training_histories(
        data.corpus, data.roles, names,
        interleave=data.task.interleaved, with_times=data.reads_times,
    )  # fmt: skip
    validation = _Validation(data, workers) if validated else None
    check_no_leak(data.corpus, data.roles, histories, *(validation.cases if validation else ()))

    def on_epoch(record: EpochRecord) -> None:
        if workers.rank == 0:
            figure = "" if record.validation is None else f"  ndcg@10 {record.validation:.4f}"
            if record.padding_share is not None:
                figure += f"  padding {record.padding_share:.0%}"
            measured = _figures(record, validation.by_domain if validation else None)
            remark = f"loss {record.loss:.3f}{figure}"
            report(record.epoch, training.epochs, "epochs", remark, measured)

    result = train(
        model,
        TrainingHistories(histories.offsets, histories.items - data.first_item, histories.users),
        data.domain_starts(),
        training,
        seed=data.task.seed,
        workers=workers,
        validate=validation,
        checkpoint_dir=scratch,
        on_epoch=on_epoch,
        domain_names=names,
        times=histories.times,
    )
    return model, result


def _point(record: EpochRecord) -> dict[str, Any]:
    """An epoch as the report's curves have it."""
    point = asdict(record)
    point["ndcg@10"] = point.pop("validation")
    return point


def _figures(record: EpochRecord, by_domain: Mapping[str, float] | None) -> Figures:
    """An epoch as the trackers have it; by_domain is None in a refit, which is not validated."""
    values = {"loss": record.loss, "lr": record.lr, "seconds": record.seconds}
    if by_domain is None:
        values = {f"refit/{name}": value for name, value in values.items()}
    if by_domain is not None and record.validation is not None:
        values["ndcg@10"] = record.validation
        values |= {f"by_domain/{name}/ndcg@10": value for name, value in by_domain.items()}
    return Figures(values, record.step, record.epoch)


class _Validation:
    """NDCG@10 on the validation targets, the mean over domains; equal on all workers.

    Attributes:
        by_domain: the latest figure of each domain that has targets.
    """

    def __init__(self, data: TaskData, workers: Workers) -> None:
        self._data, self._workers = data, workers
        self.by_domain: dict[str, float] = {}
        self.cases = [data.cases(domain, "validation") for domain in data.domains]
        self._shares = [_share(cases, data.task, workers) for cases in self.cases]

    def __call__(self, model: Recommender) -> float:
        sums_D2 = torch.zeros(len(self._shares), 2, dtype=torch.float64)
        for row, (domain, cases) in enumerate(zip(self._data.domains, self._shares, strict=True)):
            if len(cases.targets):
                gains = ndcg(self._data.rank(model, domain, cases), _CHOSEN_BY_K)
                sums_D2[row] = torch.tensor([gains.sum(), len(gains)])
        if self._workers.size > 1:
            dist.all_reduce(sums_D2)
        pairs = zip(self._data.domains, sums_D2.tolist(), strict=True)
        self.by_domain = {domain.name: total / n for domain, (total, n) in pairs if n}
        with_targets = sums_D2[sums_D2[:, 1] > 0]
        return float((with_targets[:, 0] / with_targets[:, 1]).mean())


def rank_with_user_model(data: TaskData, weights: Path, output: Path) -> None:
    """Rank the test targets of the task's domains with trained weights; two files a domain."""
    model = data.build()
    load_weights(weights, model)
    for domain in data.domains:
        cases = data.cases(domain, "test")
        scorer = data.scorer(model, domain, cases)
        save_ranks(output, domain.name, data.rank_by(scorer, domain, cases))
        mask_seen = data.task.evaluation.mask_seen
        save_examples(output, data.corpus, cases, scorer, mask_seen=mask_seen)


def _share(cases: EvaluationCases, task: UserModelTask, workers: Workers) -> EvaluationCases:
    """The share of one worker in the cases that early stopping looks at."""
    rows = np.arange(len(cases.targets))
    most = task.architecture.validation_users
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


def _check_times(model: str, domains: Sequence[DomainInfo]) -> None:
    for domain in domains:
        if domain.order == "sequence":
            raise ValueError(
                f"models: {model} reads the times of events, and the domain {domain.name} has none "
                f"(order: sequence); leave {model} out, or take hstu"
            )
