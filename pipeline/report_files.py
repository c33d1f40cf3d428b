"""The JSON files of a run's folder, from which the report is made, and made again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.results import to_json
from pipeline.whole_files import read_json, write_json, write_text

REPORT = "report.html"
METRICS = "metrics.json"
RUN = "run.json"
CURVES = "curves.json"
DATA = "data.json"
EXAMPLES = "examples.json"


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder holds.

    Attributes:
        metrics: of metrics.json, by `results.assemble`.
        run: of run.json, the run card.
        curves: of curves.json: the item LLM's and the user models' training records.
        data: of data.json: what became of each domain's rows.
        examples: of examples.json: users and items to look at; None in a run of an older version.
    """

    metrics: dict[str, Any]
    run: dict[str, Any]
    curves: dict[str, Any]
    data: dict[str, Any]
    examples: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> RunFiles:
        """Read a run's folder.

        Raises:
            ValueError: it is no finished run's folder, or a file of it is damaged.
        """
        if not (folder / METRICS).is_file():
            raise ValueError(
                f"{folder} holds no {METRICS}, so it is not the folder of a finished run; give "
                "one that jobs/multidomain.py wrote, such as runs/demo"
            )
        examples = folder / EXAMPLES
        return cls(
            metrics=read_json(folder / METRICS),
            run=read_json(folder / RUN),
            curves=read_json(folder / CURVES),
            data=read_json(folder / DATA),
            examples=read_json(examples) if examples.is_file() else None,
        )

    def write(self, folder: Path, page: str) -> None:
        """Write the JSON files and the report; metrics.json last, as the sign of a whole run.

        Args:
            folder: made if absent.
            page: the report, by `report.render`.
        """
        write_json(folder / RUN, self.run)
        write_json(folder / CURVES, self.curves)
        write_json(folder / DATA, self.data)
        if self.examples is not None:
            write_json(folder / EXAMPLES, self.examples)
        write_text(folder / REPORT, page)
        write_text(folder / METRICS, to_json(self.metrics))
