"""A transfer evaluation's files of results: one for each domain, model and seed, as it is there.

RESULTS/transfer.NAME/DOMAIN.MODEL.seed-N.json
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.metrics import from_ranks
from pipeline.ranks_file import load_ranks
from pipeline.results import rounded
from pipeline.stage_names import parsed
from pipeline.stages import StageResult
from pipeline.transfer import of_seed
from pipeline.whole_files import write_json


@dataclass(frozen=True)
class CellFiles:
    """Writes the cells of one evaluation.

    Attributes:
        folder: where they go.
        config: of the evaluation.
        command: what makes them again.
    """

    folder: Path
    config: RunConfig
    command: str

    def write(self, seed: int, ranked: StageResult) -> None:
        """Write a file for each domain that a stage rank.MODEL[.DOMAIN] has ranked."""
        model = parsed(ranked.name).model
        for domain, ranks in load_ranks(ranked.artifact.path).items():
            cell = {
                "domain": domain,
                "model": model,
                "seed": seed,
                "users": len(ranks),
                "test": rounded(from_ranks(ranks, self.config.evaluation.ks)),
                "ranks": ranked.artifact.path.name,
                "config_hash": of_seed(self.config, seed).results_hash(),
                "command": self.command,
            }
            write_json(self.folder / f"{domain}.{model}.seed-{seed}.json", cell)


def command_of(config: Path, seeds: Sequence[int], overrides: Sequence[str]) -> str:
    """The command of an evaluation, as it is written beside its figures.

    >>> command_of(Path("configs/shop.yaml"), [0, 1], ["--split.kind", "refit"])
    'python jobs/evaluate_transfer.py --config configs/shop.yaml --seeds 0 1 --split.kind refit'
    """
    parts = ["python jobs/evaluate_transfer.py --config", str(config), "--seeds", *map(str, seeds)]
    return " ".join([*parts, *overrides])
