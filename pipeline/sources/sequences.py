"""The `sequences` format: a folder with items.tsv.gz and sequences.tsv.gz.

items.tsv.gz      item_id TAB title TAB description
sequences.tsv.gz  user_id TAB item ids in order TAB their times, unix seconds (or nothing)

No header, no quoting; ids and times within a field are separated by single spaces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.sources.options import SourceOptions, resolve

TextField = Literal["title", "description"]


class SequencesConfig(SourceOptions):
    """A folder of whole user histories."""

    format: Literal["sequences"] = Field("sequences", description="this format's name")
    path: str = Field(
        description="folder with items.tsv.gz and sequences.tsv.gz: absolute, or relative to the "
        "data root (HYDRAREC_DATA)"
    )
    text_fields: tuple[TextField, ...] = Field(
        ("title", "description"),
        min_length=1,
        description="columns of items.tsv.gz that make an item's text, in this order",
    )

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """sequences.tsv.gz and items.tsv.gz, absolute."""
        folder = resolve(self.path, data_root)
        return folder / "sequences.tsv.gz", folder / "items.tsv.gz"

    def describe(self) -> str:
        """The format and the folder's name."""
        return f"sequences {Path(self.path).name}"
