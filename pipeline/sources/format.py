"""What one file of `pipeline/sources/formats/` exports: a Format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.sources.options import SourceOptions, existing_file
from pipeline.sources.tables import RawTables
from pipeline.whole_files import content_hash, file_sha256


@dataclass(frozen=True)
class Sight:
    """What somebody points at and asks: what is this?

    path: the file or folder, absolute.
    others: further files that were named with it, such as the file with the items.
    """

    path: Path
    others: tuple[Path, ...] = ()

    def files(self) -> tuple[Path, ...]:
        """The folder's files in order of name, or the one file; then the others."""
        own: tuple[Path, ...] = (self.path,)
        if self.path.is_dir():
            own = tuple(sorted(path for path in self.path.iterdir() if path.is_file()))
        return (*own, *self.others)

    def beside(self) -> tuple[Path, ...]:
        """As `files`, then the files that lie beside the one file."""
        if self.path.is_dir():
            return self.files()
        siblings = sorted(path for path in self.path.parent.iterdir() if path.is_file())
        return tuple(dict.fromkeys((*self.files(), *siblings)))


@dataclass(frozen=True)
class Guess:
    """How a format would read what was pointed at.

    fields: of the format's config, with absolute paths.
    why: what told the format, as the end of the sentence `this is FORMAT: ...`.
    """

    fields: Mapping[str, Any]
    why: str


def _nothing(sight: Sight) -> Guess | None:
    return None


def files_fingerprint(config: SourceOptions, data_root: Path) -> str:
    """SHA-256 (hex) of the contents of all files that the source reads, not of where they lie.

    Raises:
        ValueError: a file is absent.
    """
    files = [existing_file(file, config.describe()) for file in config.files(data_root)]
    return content_hash([file_sha256(file) for file in files])


@dataclass(frozen=True)
class Format:
    """One source format.

    config: its fields; `format` must be a Literal with the format's name as default.
    read: config and data root to tables, lazily.
    summary: what the format is, in one line of at most 72 characters.
    recognise: tells whether something is of this format, by contents and names; ValueError if
        it is, but damaged.
    is_general: the format fits many things, so any other that recognises them goes first.
    fingerprint: of what the source reads, where that is not its files' contents.
    """

    config: type[SourceOptions]
    read: Callable[[Any, Path], RawTables]
    summary: str
    recognise: Callable[[Sight], Guess | None] = field(default=_nothing)
    is_general: bool = False
    fingerprint: Callable[[Any, Path], str] = field(default=files_fingerprint)

    @property
    def name(self) -> str:
        """The value of `format:` in a config."""
        name = self.config.model_fields["format"].default
        assert isinstance(name, str)
        return name
