"""The work of a study's cells: prepare the domain once, then train and rank cell by cell.

WORK/corpus-KEY16/           the prepared domain, shared by all cells that read it
WORK/CELL-KEY16/seed-N/      weights, curve, ranks and checkpoints of a cell

A cell's file of results is written after each of its seeds, so a study that is stopped goes on
where it stood: finished seeds are read from the file, a training from its last checkpoint.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.corpus import Corpus, build_corpus
from pipeline.domains import build_domain
from pipeline.locks import exclusive_lock
from pipeline.metrics import from_ranks
from pipeline.ranking import baseline_ranks
from pipeline.ranks_file import load_ranks
from pipeline.results_page import put_section
from pipeline.sources.registry import source_fingerprint
from pipeline.study_config import Cell, StudyConfig
from pipeline.study_plot import study_plot
from pipeline.study_results import CellResult, SeedResult, study_table
from pipeline.task_data import TaskData
from pipeline.tracking.records import Figures
from pipeline.user_model_task import TaskFolders, UserModelTask
from pipeline.user_models import CURVE, WEIGHTS, rank_with_user_model, train_user_model
from pipeline.whole_files import content_hash, read_json, write_text
from user_model import Workers
from user_model.config_keys import key_fields

Tell = Callable[[str], None]


@dataclass(frozen=True)
class StudyRun:
    """A study and its folders.

    Attributes:
        study: what is run.
        results: folder of the files of results, STUDY.CELL.json.
        work: folder of all else.
        data: folder that the sources' paths are read against.
        tell: told a line at a time how it goes on.
    """

    study: StudyConfig
    results: Path
    work: Path
    data: Path
    tell: Tell

    def result_file(self, cell: Cell) -> Path:
        """Where a cell's results stand."""
        return self.results / f"{self.study.name}.{cell.name}.json"

    def config_hash(self, cell: Cell) -> str:
        """SHA-256 (hex) of what decides a cell's figures, but for the seed."""
        config = self.study.run_of(cell)
        if self.study.is_trained(cell):
            recipe = self.study.task(cell, 0).training_recipe() | {"seed": None}
        else:
            recipe = {
                "split": key_fields(config.split),
                "evaluation": config.evaluation.model_dump(mode="json"),
                "model": self.study.model_of(cell),
            }
        decides = {"recipe": recipe, "data": self._data_key(config)}
        return content_hash(decides | ({"refit": True} if cell.refit is not None else {}))

    def run(self, cell: Cell, seeds: tuple[int, ...], command: str) -> CellResult:
        """Train and rank the seeds of a cell that its file of results lacks.

        A baseline has one, since nothing of it is drawn. Of a refit, those of the cell that chooses
        its epochs are needed before. Several processes may train seeds of one cell at a time.

        Args:
            cell: one of the study's.
            seeds: which.
            command: what trains this cell, without its seeds; kept beside the figures.

        Raises:
            ValueError: they are absent.
            BusyError: another process trains this cell with this seed.
        """
        config_hash = self.config_hash(cell)
        for seed in seeds if self.study.is_trained(cell) else seeds[:1]:
            found = CellResult.read(self.result_file(cell), config_hash)
            if found is not None and seed in [done.seed for done in found.seeds]:
                continue
            if self.study.is_trained(cell):
                figures = self._train_and_rank(cell, seed, config_hash)
            else:
                figures = self._count_and_rank(cell, seed)
            self._add(cell, config_hash, figures, command)
        result = CellResult.read(self.result_file(cell), config_hash)
        assert result is not None
        return result

    def _add(self, cell: Cell, config_hash: str, figures: SeedResult, command: str) -> None:
        """Put a seed's figures to those in the cell's file, which another process may write too."""
        path = self.result_file(cell)
        with exclusive_lock(self.work / f".{path.stem}.lock", wait=True):
            result = CellResult.read(path, config_hash) or CellResult(
                study=self.study.name, cell=cell.name, about=cell.about, change=cell.change,
                model=self.study.model_of(cell), config_hash=config_hash, command=command,
                refit=cell.refit, against=cell.against,
            )  # fmt: skip
            result.with_seed(figures, command).write(path)

    def write_page(self, docs: Path, command: str) -> None:
        """Write the table of all cells that have results, in the study's order.

        It is a section of DOCS/results.md or, where the study has a page of its own, stands in
        DOCS/studies/STUDY.md with a plot beside it.
        """
        results = [
            self._told(cell, found)
            for cell in self.study.cells
            if (found := CellResult.read(self.result_file(cell))) is not None and found.seeds
        ]
        if not results:
            return
        name, metrics = self.study.name, self.study.metrics
        text = f"## {self.study.title}\n\n    {command}\n\n{study_table(results, metrics)}"
        page = docs / "results.md"
        if self.study.own_page:
            page = docs / "studies" / f"{name}.md"
            page.parent.mkdir(parents=True, exist_ok=True)
            write_text(page.with_suffix(".svg"), study_plot(results, metrics[0]))
            text += f"\n![test {metrics[0]} of each cell]({name}.svg)\n"
        put_section(page, f"study {name}", text)

    def _told(self, cell: Cell, found: CellResult) -> CellResult:
        """A cell's results as the page has them.

        What it is called and compared with is the study's word, and may have changed since; what
        was trained under another config says so.
        """
        is_older = found.config_hash != self.config_hash(cell)
        about = f"{found.about} (of an older config)" if is_older else cell.about
        return found.model_copy(update={"about": about, "against": cell.against})

    def _train_and_rank(self, cell: Cell, seed: int, config_hash: str) -> SeedResult:
        folder = self.work / f"{cell.name}-{config_hash[:16]}" / f"seed-{seed}"
        # Two processes that train into one folder would each go on from the other's checkpoints.
        with exclusive_lock(folder / ".lock", wait=False):
            return self._trained_and_ranked(cell, seed, folder)

    def _trained_and_ranked(self, cell: Cell, seed: int, folder: Path) -> SeedResult:
        (folder / "ranks").mkdir(exist_ok=True)
        task = self._task(cell, seed)
        data = TaskData(task, TaskFolders(corpus=self._corpus(cell), vectors=None))
        label = f"{cell.name}, seed {seed}"
        facts = train_user_model(data, Workers(), folder, folder / "fit", self._report(label))
        rank_with_user_model(data, folder / WEIGHTS, folder / "ranks")
        ranks = load_ranks(folder / "ranks")[str(task.domain)]
        curve = read_json(folder / CURVE)
        return SeedResult.of(seed, from_ranks(ranks, task.evaluation.ks), facts, curve)

    def _count_and_rank(self, cell: Cell, seed: int) -> SeedResult:
        config, corpus = self.study.run_of(cell), Corpus.open(self._corpus(cell))
        kind = config.split.kind if cell.refit is None else "refit"
        split = config.split.model_copy(update={"kind": kind})
        model, domain = self.study.model_of(cell), config.domains[0].name
        ranks = baseline_ranks(model, corpus, domain, split, config.evaluation)
        return SeedResult.counted(seed, from_ranks(ranks, config.evaluation.ks))

    def _task(self, cell: Cell, seed: int) -> UserModelTask:
        task = self.study.task(cell, seed)
        if cell.refit is None:
            return task
        strict = self.study.cell(cell.refit)
        found = CellResult.read(self.result_file(strict), self.config_hash(strict))
        for done in [] if found is None else found.seeds:
            if done.seed == seed:
                return task.refitting(done.best_epoch)
        raise ValueError(
            f"cell {cell.name}: the epochs of seed {seed} are chosen by the cell {strict.name}, "
            f"and {self.result_file(strict)} has none for it; run that cell first"
        )

    def _report(self, label: str) -> Callable[[float, float, str, str, Figures], None]:
        def report(done: float, total: float, unit: str, remark: str, _: Figures) -> None:
            self.tell(f"{label}: {done:.0f}/{total:.0f} {unit}  {remark}")

        return report

    def _corpus(self, cell: Cell) -> Path:
        config = self.study.run_of(cell)
        folder = self.work / f"corpus-{content_hash(self._data_key(config))[:16]}"
        if not folder.is_dir():
            aside = folder.with_name(f".{folder.name}.{os.getpid()}")
            shutil.rmtree(aside, ignore_errors=True)
            domain = build_domain(
                config.domains[0], self.data, aside / "quarantine", aside / "work",
                seed=config.seed,
            )  # fmt: skip
            build_corpus([domain], aside / "corpus")
            shutil.rmtree(aside / "work", ignore_errors=True)
            aside.rename(folder)
        return folder / "corpus"

    def _data_key(self, config: RunConfig) -> dict[str, Any]:
        domain = config.domains[0]
        return {
            "domain": domain.model_dump(mode="json"),
            "source": source_fingerprint(domain.source, self.data),
            "seed": config.seed,
        }
