"""Stages and their runner: skip what is done, resume what is not, run side by side what can.

A stage is data: a name, the part of the config that it reads, the stages whose outputs it reads,
and a function. Its output is named by the hash of the first three, so a second run does nothing
and a change of one field makes again only what depends on it.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipeline.artifacts import SCRATCH, Artifact, DamagedArtifactError, RunStore, clear_but_scratch
from pipeline.progress import Progress, StageProgress
from pipeline.storage.disk import telling_of_the_disk
from pipeline.storage.site import SharedSite, Site, StageFolders
from pipeline.tracking.records import Figures
from pipeline.whole_files import content_hash

log = logging.getLogger(__name__)

# Our choice: no one who presses Ctrl-C notices it, and looking costs microseconds.
_SIGNALS_HEEDED_SECONDS = 0.25

Status = Literal["ran", "resumed", "reused"]


@dataclass(frozen=True)
class StageContext:
    """What a stage's function is given.

    Attributes:
        output: The folder to write into; all of it becomes the stage's output.
        scratch: A folder for checkpoints: kept if the stage is killed, dropped once it is done.
        inputs: The finished output folders of the stages it named, by stage name.
        progress: Where it says how far it is.
        site: How its workers find these folders; None: they see the same ones.
    """

    output: Path
    scratch: Path
    inputs: Mapping[str, Path]
    progress: StageProgress
    site: Site | None = None

    @property
    def on_workers(self) -> Site:
        """How its workers find its folders, on whichever machine they run."""
        return self.site or SharedSite(StageFolders(self.output, self.scratch, self.inputs))


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: Unique within a run; also the first part of the output folder's name.
        recipe: The slice of the config, and fingerprints of outside data, that decide the output.
        make: Writes the output; what it returns (peak memory ...) is kept beside the checksums.
        inputs: The stages whose outputs it reads.
        version: Raised by hand when the code's meaning changes, so that old outputs are not used.
        slots: How many of the run's workers it keeps busy.
    """

    name: str
    recipe: Mapping[str, Any]
    make: Callable[[StageContext], Mapping[str, Any] | None] = field(repr=False, compare=False)
    inputs: tuple[Stage, ...] = ()
    version: int = 1
    slots: int = 1

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) over name, version, recipe and the keys of all inputs."""
        return content_hash(self.described)

    @property
    def described(self) -> dict[str, Any]:
        """What the key is a hash of; it stands in the output's manifest."""
        inputs = {stage.name: stage.key for stage in self.inputs}
        return {
            "name": self.name,
            "version": self.version,
            "recipe": self.recipe,
            "inputs": inputs,
        }


@dataclass(frozen=True)
class StageResult:
    """What became of one stage: how, in how many seconds, and where its output stands."""

    name: str
    status: Status
    seconds: float
    artifact: Artifact
    facts: Mapping[str, Any]


class InterruptedStageError(RuntimeError):
    """A stage failed after the run was told to stop: that says nothing about the stage."""


class Runner:
    """Runs stages in the order of their inputs, as many at a time as there are slots."""

    def __init__(
        self,
        store: RunStore,
        progress: Progress,
        *,
        slots: int,
        on_finished: Callable[[StageResult], None] | None = None,
    ) -> None:
        self.store, self.progress, self.slots = store, progress, slots
        self._on_finished = on_finished
        self._done: dict[str, StageResult] = {}
        self._interrupted = threading.Event()

    def run(self, targets: Iterable[Stage]) -> dict[str, StageResult]:
        """Make all targets and what they stand on; returns all results so far, by stage name.

        Raises:
            Exception: the first failure; stages already running are left to their end.
            Interrupted: at once; what runs is left as it is, to be resumed by the next run.
        """
        done = self._done
        waiting = [stage for stage in in_order(targets) if stage.name not in done]
        running: dict[Future[StageResult], Stage] = {}
        try:
            while waiting or running:
                for stage in self._ready(waiting, running, done):
                    waiting.remove(stage)
                    running[self._begin(stage)] = stage
                for future in _ended(running):
                    stage = running.pop(future)
                    done[stage.name] = future.result()
        except Exception:
            left = set(running)
            while left:
                left -= _ended(left)
            raise
        except BaseException:
            self._interrupted.set()
            raise
        return dict(done)

    def _begin(self, stage: Stage) -> Future[StageResult]:
        """Run a stage in a daemon thread, which an interrupted run does not wait for."""
        future: Future[StageResult] = Future()
        done = dict(self._done)

        def work() -> None:
            try:
                future.set_result(self._run_one(stage, done))
            except BaseException as error:  # it is raised by whoever asks for the result
                future.set_exception(error)

        threading.Thread(target=work, name=stage.name, daemon=True).start()
        return future

    def _ready(
        self,
        waiting: list[Stage],
        running: Mapping[Future[StageResult], Stage],
        done: Mapping[str, StageResult],
    ) -> list[Stage]:
        free = self.slots - sum(min(stage.slots, self.slots) for stage in running.values())
        ready = []
        for stage in waiting:
            if not all(needed.name in done for needed in stage.inputs):
                continue
            free -= min(stage.slots, self.slots)
            if free < 0:  # its turn is next: smaller stages behind it do not overtake it
                break
            ready.append(stage)
        return ready

    def _run_one(self, stage: Stage, done: Mapping[str, StageResult]) -> StageResult:
        inputs = {needed.name: done[needed.name].artifact for needed in stage.inputs}
        with self.progress.stage(stage.name) as progress:
            started = time.monotonic()
            if artifact := self._finished(stage, progress):
                status: Status = "reused"
            else:
                artifact, status = self._make(stage, inputs, progress)
            seconds = time.monotonic() - started
            progress.finish(status, seconds)
            result = StageResult(
                stage.name, status, seconds, artifact, artifact.recipe.get("made", {})
            )
            progress.log(_cost(result))
        if self._on_finished is not None:
            self._on_finished(result)
        return result

    def _finished(self, stage: Stage, progress: StageProgress) -> Artifact | None:
        try:
            return self.store.find(stage.name, stage.key, progress.update)
        except DamagedArtifactError as error:
            aside = self.store.set_aside(stage.name, stage.key)
            log.warning("%s; it was moved to %s and is made again", error, aside)
            return None

    def _make(
        self, stage: Stage, inputs: Mapping[str, Artifact], progress: StageProgress
    ) -> tuple[Artifact, Status]:
        def on_wait(owner: str) -> None:
            progress.note(f"waiting for {owner}, which makes the same output")

        with self.store.working_folder(stage.name, stage.key, on_wait=on_wait) as work:
            if artifact := self.store.find(stage.name, stage.key, progress.update):
                shutil.rmtree(work)
                return artifact, "reused"
            if artifact := self.store.left_whole(stage.name, stage.key, work, progress.update):
                return artifact, "resumed"
            scratch = work / SCRATCH
            site = self.store.site(stage.name, stage.key, work, scratch, inputs)
            status: Status = "resumed" if scratch.exists() else "ran"
            scratch.mkdir(exist_ok=True)
            started = time.monotonic()
            paths = {name: artifact.path for name, artifact in inputs.items()}
            with telling_of_the_disk(str(work), stage.name, lambda: clear_but_scratch(work)):
                facts = self._facts(stage, StageContext(work, scratch, paths, progress, site))
                facts["seconds"] = round(time.monotonic() - started, 3)
                recipe = stage.described | {"made": facts}
                artifact = self.store.commit(stage.name, stage.key, work, recipe, progress.update)
            return artifact, status

    def _facts(self, stage: Stage, context: StageContext) -> dict[str, Any]:
        try:
            return dict(stage.make(context) or {})
        except ValueError as error:
            # Its workers are gone: this is no mistake of the user's, and what is begun is kept.
            if self._interrupted.is_set():
                raise InterruptedStageError(f"{stage.name} was interrupted") from error
            raise


def _ended(running: Iterable[Future[StageResult]]) -> set[Future[StageResult]]:
    """Wait for one or more of these to end.

    The wait is in turns: a signal that comes just before this thread sleeps, or to another thread,
    does not wake it, and would be heeded only once a stage had ended, hours later.
    """
    while True:
        if ended := wait(running, _SIGNALS_HEEDED_SECONDS, FIRST_COMPLETED).done:
            return ended


def _cost(result: StageResult) -> Figures:
    """Seconds in this run, and what its making took, then or now."""
    made = {
        name: float(result.facts[fact])
        for name, fact in (("made_in_seconds", "seconds"), ("peak_mb", "peak_mb"))
        if result.facts.get(fact) is not None
    }
    return Figures({"run_seconds": result.seconds, **made})


def in_order(targets: Iterable[Stage]) -> list[Stage]:
    """All stages that the targets stand on, inputs first, each once."""
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        for needed in stage.inputs:
            visit(needed)
        known = ordered.setdefault(stage.name, stage)
        assert known.key == stage.key, f"two different stages are named {stage.name}"

    for target in targets:
        visit(target)
    return list(ordered.values())
