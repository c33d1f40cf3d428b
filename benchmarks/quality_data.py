"""What the rivals of a race train on and are asked: one file of ids, strict split, length 50."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality_rivals import Rival
from pipeline.config import RunConfig
from pipeline.corpus import Corpus, DomainInfo
from pipeline.histories import EvaluationCases, TrainingHistories
from pipeline.leaks import check_no_leak
from pipeline.metrics import ndcg
from pipeline.prepare import CORPUS, make_corpus
from pipeline.progress import Progress
from pipeline.splits import training_histories
from pipeline.stages import StageContext
from pipeline.task_data import TaskData
from pipeline.user_model_task import TaskFolders, UserModelTask
from user_model import Recommender

_K = 10


def find_ids(name: str, root: Path) -> Path:
    """The file that `--data` names: a path, or NAME or NAME.txt below `root`.

    Raises:
        ValueError: there is no such file.
    """
    tried = [Path(name).expanduser(), root / name, root / f"{name}.txt"]
    for path in tried:
        if path.is_file():
            return path.absolute()
    raise ValueError(
        f"data: {name} is absent, looked for {', '.join(map(str, tried))}; give a file with a "
        "user a line (the user's id, then item ids in order), or set --root to the folder of data"
    )


@dataclass(frozen=True)
class RaceData:
    """One corpus, cut once for all rivals.

    Attributes:
        name: of the data.
        corpus: the domain's events.
        run: the config that it was read with.
        folder: where it stands.
        histories: what all train on; items count from 0.
    """

    name: str
    corpus: Corpus
    run: RunConfig
    folder: Path
    histories: TrainingHistories

    @classmethod
    def prepare(cls, file: Path, folder: Path, seed: int) -> RaceData:
        """Read the file into a corpus below `folder` and cut it; a leak raises.

        Raises:
            ValueError: the file is no file of ids.
        """
        name = re.sub(r"[^a-z0-9_-]", "-", file.stem.lower()).lstrip("-_")[:64] or "data"
        run = _run_config(name, file, seed)
        scratch = folder / "scratch"
        scratch.mkdir(parents=True)
        with Progress().stage("corpus") as progress:
            make_corpus(run, file.parent, StageContext(folder, scratch, {}, progress))
        data = _task_data(run, folder, Rival.parse("hydra"))
        histories = training_histories(data.corpus, data.roles, [name], interleave=False)
        cases = [data.cases(data.domains[0], role) for role in ("validation", "test")]
        check_no_leak(data.corpus, data.roles, histories, *cases)
        return cls(name, data.corpus, run, folder, histories)

    def of(self, rival: Rival) -> RivalData:
        """The data as one rival sees it."""
        return RivalData(self, _task_data(self.run, self.folder, rival))

    def facts(self) -> dict[str, object]:
        """What a cell's file says of the data."""
        domain = self.corpus.domains[0]
        return {
            "name": self.name,
            "fingerprint": self.corpus.fingerprint(),
            "users": self.corpus.n_users,
            "items": domain.n_items,
            "interactions": self.corpus.n_events,
            "split": self.run.split.model_dump(mode="json"),
            "mask_seen": self.run.evaluation.mask_seen,
        }


class RivalData:
    """A rival's task on the data: its fresh model, and the quality of a trained one."""

    def __init__(self, race: RaceData, task: TaskData) -> None:
        self._task = task
        self.domain: DomainInfo = task.domains[0]
        self.histories = race.histories
        self.domain_starts = task.domain_starts()
        self._validation = task.cases(self.domain, "validation")
        self._test = task.cases(self.domain, "test")

    def build(self) -> Recommender:
        """A model with fresh weights, drawn from the seed."""
        return self._task.build()

    def validation(self, model: Recommender) -> float:
        """NDCG@10 on all validation targets."""
        return self._ndcg(model, self._validation)

    def test(self, model: Recommender) -> float:
        """NDCG@10 on all test targets."""
        return self._ndcg(model, self._test)

    def first_histories(self, count: int) -> TrainingHistories:
        """A few histories, to warm up with."""
        offsets = self.histories.offsets[: count + 1]
        return TrainingHistories(
            offsets, self.histories.items[: offsets[-1]], self.histories.users[: len(offsets) - 1]
        )

    def _ndcg(self, model: Recommender, cases: EvaluationCases) -> float:
        return float(np.mean(ndcg(self._task.rank(model, self.domain, cases), _K)))


def _run_config(name: str, file: Path, seed: int) -> RunConfig:
    source = {"format": "ids", "path": str(file)}
    return RunConfig.model_validate(
        {
            "seed": seed,
            "domains": [{"name": name, "source": source}],
            "models": ["sasrec_bce", "sasrec", "hydra_ids"],
            "split": {"kind": "strict", "max_history": 50},
        }
    )


def _task_data(run: RunConfig, folder: Path, rival: Rival) -> TaskData:
    task = UserModelTask.of(rival.model, run.domains[0].name, run)
    task = task.model_copy(update={"architecture": rival.architecture})
    return TaskData(task, TaskFolders(corpus=folder / CORPUS, vectors=None))
