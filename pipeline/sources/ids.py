"""The `ids` format: one user a line, the user id and then item ids in order; no times, no texts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.sources.options import SourceOptions, resolve


class IdsConfig(SourceOptions):
    """A file of user histories as bare ids."""

    format: Literal["ids"] = Field("ids", description="this format's name")
    path: str = Field(
        description="file with a user a line (user id, item ids in order, separated by spaces; "
        ".gz too): absolute, or relative to the data root (HYDRAREC_DATA)"
    )

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """The one file, absolute."""
        return (resolve(self.path, data_root),)

    def describe(self) -> str:
        """The format and the file's name."""
        return f"ids {Path(self.path).name}"
