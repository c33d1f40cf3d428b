"""What a finished run left: its files, its config, and the outputs of its stages in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.artifacts import Artifact, DamagedArtifactError, RunStore
from pipeline.config import RunConfig
from pipeline.config_mistakes import describe_mistakes
from pipeline.report_files import RunFiles
from pipeline.stage_names import is_training, parsed
from pipeline.storage.stores import open_store


@dataclass(frozen=True)
class RunOutputs:
    """A finished run.

    Attributes:
        folder: its own.
        files: the JSON files in it.
        config: what it was run with.
    """

    folder: Path
    files: RunFiles
    config: RunConfig

    @classmethod
    def read(cls, folder: Path) -> RunOutputs:
        """Read the folder of a finished run.

        Raises:
            ValueError: it is none, or its run card's config is not one of this version.
        """
        files = RunFiles.read(folder)
        try:
            config = RunConfig.model_validate(files.run["config"])
        except ValidationError as error:
            raise ValueError(describe_mistakes(error, RunConfig, f"{folder}/run.json")) from error
        return cls(folder, files, config)

    @property
    def stages(self) -> dict[str, str]:
        """The folder of each stage's output, below the store, by the stage's name."""
        return {stage["name"]: Path(stage["path"]).name for stage in self.files.run["stages"]}

    def trained(self) -> dict[str, dict[str | None, str]]:
        """Of each trained model, the stage of each domain; None: of all domains together."""
        found: dict[str, dict[str | None, str]] = {}
        for stage in self.stages:
            if is_training(stage):
                _, model, domain = parsed(stage)
                found.setdefault(model, {})[domain] = stage
        return found

    def output(self, stage: str, tell: Callable[..., Any] | None = None) -> Path:
        """The output of a stage on this machine, verified.

        Args:
            stage: its name.
            tell: told of transfers from an object store.

        Raises:
            ValueError: the run had no such stage, or its output is no longer in the store, or
                damaged.
        """
        if stage not in self.stages:
            raise ValueError(f"the run {self.folder} had no stage {stage}; run it again with it")
        name = self.stages[stage]
        stores = [open_store(self.config.store)]
        moved = RunStore(self.folder.parent / ".store")  # a whole runs/ folder was moved
        for store in [*stores, moved]:
            if (artifact := _found(store, name, stage, tell)) is not None:
                return artifact.path
        raise ValueError(
            f"the output of {stage} is no longer in the run store ({name} is neither in "
            f"{stores[0].address} nor in {moved.address}); run the config of {self.folder} again, "
            "which makes what is missing"
        )


def _found(
    store: RunStore, name: str, stage: str, tell: Callable[..., Any] | None
) -> Artifact | None:
    try:
        return store.named(name, tell)
    except DamagedArtifactError as error:
        raise ValueError(
            f"{error}; run the config again: {stage} is made anew, and all that stands on it"
        ) from error
