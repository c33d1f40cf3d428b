"""The ranks of finished seeds, kept beside the results: nothing is run again to compare them.

FOLDER/seed-N/MODEL/DOMAIN.npz and, written last, FOLDER/seed-N/manifest.json

A table over several seeds is paired by user, so it needs every user's rank from each of them. With
these files the seeds may be trained in several calls, on several machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from item_llm.folders import (
    MANIFEST,
    publish,
    read_manifest,
    sha256_of,
    staged,
    write_manifest,
)
from pipeline.config import RunConfig
from pipeline.ranks_file import load_ranks, save_ranks
from pipeline.stage_names import is_ranking, parsed, rank_stage
from pipeline.stages import StageResult

_KIND = "seed's ranks"


@dataclass(frozen=True)
class SeedRanks:
    """What a training seed gave.

    Attributes:
        ranked: folders of ranks, by the name of a stage rank.MODEL[.DOMAIN].
        seconds: of its stages, one after the other.
        data_fingerprint: of the corpus that was ranked.
    """

    ranked: Mapping[str, Path]
    seconds: float
    data_fingerprint: str

    @classmethod
    def of(cls, stages: Mapping[str, StageResult], data_fingerprint: str) -> SeedRanks:
        """Those of a run that has ended."""
        ranked = {name: r.artifact.path for name, r in stages.items() if is_ranking(name)}
        seconds = sum(float(result.facts.get("seconds", 0.0)) for result in stages.values())
        return cls(ranked, round(seconds, 1), data_fingerprint)


@dataclass(frozen=True)
class KeptRanks:
    """A folder of them.

    Attributes:
        folder: made by the first `keep`.
    """

    folder: Path

    def keep(self, run: RunConfig, found: SeedRanks) -> None:
        """Copy the ranks of a seed's run; what was kept of the seed before goes."""
        folder = self._folder(run)
        with staged(folder) as staging:
            for stage, path in found.ranked.items():
                model = staging / parsed(stage).model
                model.mkdir(exist_ok=True)
                for domain, ranks in load_ranks(path).items():
                    save_ranks(model, domain, ranks)
            facts = {
                "config_hash": run.results_hash(),
                "data_fingerprint": found.data_fingerprint,
                "seconds": found.seconds,
            }
            write_manifest(staging, _KIND, facts)
            publish(staging, folder, replace=True)

    def find(self, run: RunConfig) -> SeedRanks | None:
        """The ranks of this seed under this config; None: there are none, or of another config.

        Raises:
            ValueError: a file is damaged or absent.
        """
        folder = self._folder(run)
        if not (folder / MANIFEST).is_file():
            return None
        facts = read_manifest(folder, _KIND, verify=False)
        if facts["config_hash"] != run.results_hash():
            return None
        for name, sha256 in facts["files"].items():
            if not (folder / name).is_file() or sha256_of(folder / name) != sha256:
                raise ValueError(
                    f"{folder / name} is absent or not the file that the manifest beside it names; "
                    f"remove {folder}, and the seed is run again"
                )
        models = sorted({name.split("/")[0] for name in facts["files"]})
        ranked = {rank_stage(model): folder / model for model in models}
        return SeedRanks(ranked, facts["seconds"], facts["data_fingerprint"])

    def _folder(self, run: RunConfig) -> Path:
        return self.folder / f"seed-{run.seed}"
