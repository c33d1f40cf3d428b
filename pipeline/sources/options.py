"""What every source config has, and how a source finds its files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.storage.local_copy import on_this_machine

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def checked_name(value: str, what: str) -> str:
    """The name itself, if it is fit for a folder and for a key such as `platform:user`.

    Raises:
        ValueError: it is empty, too long, or holds anything but a-z, 0-9, `_` and `-`.
    """
    if _NAME.fullmatch(value):
        return value
    raise ValueError(
        f"{what} {value!r} cannot be used: give 1 to 64 characters of a-z, 0-9, `_` and `-` that "
        "start with a letter or a digit, for example `video-games`"
    )


MinRating = Annotated[
    float | None,
    Field(description="leave out interactions rated lower than this; null: keep all"),
]


class SourceOptions(BaseModel):
    """Options that mean the same for every format."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    platform: str = Field(
        "main",
        description="where the user ids come from: equal ids on one platform are one person, "
        "whose history spans domains; give unrelated data sets different platforms",
    )
    max_users: int | None = Field(
        None,
        ge=1,
        description="keep this many users at most, chosen by a hash of (platform, user id), so "
        "that a person is chosen in all domains or in none",
    )

    @field_validator("platform")
    @classmethod
    def _platform_is_a_name(cls, value: str) -> str:
        return checked_name(value, "platform")

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """Absolute paths of all files that the source reads, in a fixed order."""
        raise NotImplementedError

    def describe(self) -> str:
        """A short description for the report, without any path outside the config."""
        raise NotImplementedError


def given_paths(data_root: Path, *names: str | None) -> tuple[Path, ...]:
    """Absolute paths of those that are given; relative ones start from the data root."""
    return tuple(on_this_machine(name, data_root) for name in names if name is not None)


def existing_file(path: Path, needed_for: str) -> Path:
    """The path, if it is a file.

    Raises:
        ValueError: it is absent or a folder; names the path and what to do.
    """
    if path.is_file():
        return path
    state = "is a folder" if path.is_dir() else "is absent"
    raise ValueError(
        f"{needed_for}: the file {path} {state}; correct the path in the config, or set "
        "HYDRAREC_DATA to the folder that relative paths start from"
    )
