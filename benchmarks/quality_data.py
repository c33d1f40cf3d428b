"""What the rivals of a race train on and are asked: one domain, strict split, length 50."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.quality_rivals import TEXT_KIND, Rival
from benchmarks.quality_texts import ItemTexts
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
from user_model.config_keys import key_fields

_K = 10
_SEQUENCES = "sequences.tsv.gz"
_PROBE = Rival.parse("hydra")


def find_data(name: str, root: Path) -> Path:
    """What `--data` names: a path, or NAME or NAME.txt below `root`; a file of ids, or a folder.

    A folder holds sequences.tsv.gz and items.tsv.gz, the interactions and the items' texts.

    Raises:
        ValueError: there is none.
    """
    tried = [Path(name).expanduser(), root / name, root / f"{name}.txt"]
    for path in tried:
        if path.is_file() or (path / _SEQUENCES).is_file():
            return path.absolute()
    raise ValueError(
        f"data: {name} is absent, looked for {', '.join(map(str, tried))}; give a file with a "
        f"user a line (the user's id, then item ids in order), a folder with {_SEQUENCES} and "
        "items.tsv.gz, or set --root to the folder of data"
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
        texts: vectors of the items' texts, where a rival reads them.
    """

    name: str
    corpus: Corpus
    run: RunConfig
    folder: Path
    histories: TrainingHistories
    texts: ItemTexts | None = None

    @classmethod
    def prepare(cls, path: Path, folder: Path, seed: int) -> RaceData:
        """Read the data into a corpus below `folder` and cut it; a leak raises.

        Args:
            path: from `find_data`.
            folder: made if absent.
            seed: of the run.

        Raises:
            ValueError: the data are not of their format.
        """
        name = _name_of(path)
        run = _run_config(name, path, seed)
        scratch = folder / "scratch"
        scratch.mkdir(parents=True)
        with Progress().stage("corpus") as progress:
            make_corpus(run, path.parent, StageContext(folder, scratch, {}, progress))
        data = _task_data(run, TaskFolders(corpus=folder / CORPUS, vectors=None), _PROBE)
        histories = training_histories(data.corpus, data.roles, [name], interleave=False)
        cases = [data.cases(data.domains[0], role) for role in ("validation", "test")]
        check_no_leak(data.corpus, data.roles, histories, *cases)
        return cls(name, data.corpus, run, folder, histories)

    def with_texts(self, base: str, folder: Path) -> RaceData:
        """The same with the items' text vectors, encoded below `folder` or found there.

        Raises:
            ValueError: the items have no texts, or the encoder cannot be found.
        """
        if not any(self.corpus.texts):
            raise ValueError(
                f"models: {TEXT_KIND} reads the items' texts, and {self.name} has none; name a "
                "folder with items.tsv.gz as --data"
            )
        return replace(self, texts=ItemTexts.prepare(self.corpus, base, folder))

    def of(self, rival: Rival) -> RivalData:
        """The data as one rival sees it."""
        assert self.texts or rival.kind != TEXT_KIND, "with_texts comes first"
        vectors = self.texts.folder if self.texts and rival.kind == TEXT_KIND else None
        folders = TaskFolders(corpus=self.folder / CORPUS, vectors=vectors)
        return RivalData(self, _task_data(self.run, folders, rival))

    def facts(self) -> dict[str, object]:
        """What a cell's file says of the data."""
        domain = self.corpus.domains[0]
        return {
            "name": self.name,
            "fingerprint": self.corpus.fingerprint(),
            "users": self.corpus.n_users,
            "items": domain.n_items,
            "interactions": self.corpus.n_events,
            "split": key_fields(self.run.split),
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


def _name_of(path: Path) -> str:
    """The data's name, fit for a domain: of a folder with that of the folder above it."""
    name = path.stem if path.is_file() else f"{path.parent.name}-{path.name}"
    return re.sub(r"[^a-z0-9_-]", "-", name.lower()).lstrip("-_")[:64] or "data"


def _run_config(name: str, path: Path, seed: int) -> RunConfig:
    source = {"format": "ids" if path.is_file() else "sequences", "path": str(path)}
    return RunConfig.model_validate(
        {
            "seed": seed,
            "domains": [{"name": name, "source": source}],
            "models": ["sasrec_bce", "sasrec", "hydra_ids", "hydra_frozen"],
            "split": {"kind": "strict", "max_history": 50},
        }
    )


def _task_data(run: RunConfig, folders: TaskFolders, rival: Rival) -> TaskData:
    task = UserModelTask.of(rival.model, run.domains[0].name, run)
    task = task.model_copy(update={"architecture": rival.architecture})
    return TaskData(task, folders)
