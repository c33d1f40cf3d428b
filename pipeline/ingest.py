"""Look at strangers' data: their format, what is in them, and the YAML that uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.sources.format import Format, Sight
from pipeline.sources.options import SourceOptions
from pipeline.sources.registry import FORMATS, read_source
from pipeline.sources.tables import RawTables


@dataclass(frozen=True)
class Recognised:
    """What something is: its format, why, and the fields of its config."""

    format: Format
    why: str
    fields: Mapping[str, Any]

    def config(self) -> SourceOptions:
        """The source's config."""
        return self.format.config.model_validate(dict(self.fields))


def recognise(path: Path, others: Sequence[Path] = (), name: str | None = None) -> Recognised:
    """Find the format of a file or folder; a particular format goes before a general one.

    Args:
        path: absolute.
        others: further files that belong to it, such as the one with the items.
        name: the format, where the user knows it; None: all are asked.

    Raises:
        ValueError: the path is absent, or no format knows it.
    """
    if not path.exists():
        raise ValueError(f"{path} is absent: give a file or a folder")
    if name is not None and name not in FORMATS:
        raise ValueError(f"--format {name} is unknown: known are {', '.join(FORMATS)}")
    asked = sorted(FORMATS.values() if name is None else [FORMATS[name]], key=_generality)
    for known in asked:
        if guess := known.recognise(Sight(path, tuple(others))):
            return Recognised(known, guess.why, guess.fields)
    looked_for = "".join(f"\n  {known.name}: {known.summary}" for known in asked)
    raise ValueError(
        f"{path} is in no format that is known; looked for{looked_for}\n"
        "if it is a table whose columns have other names, say in the config which is which: "
        "docs/data.md"
    )


def _generality(known: Format) -> tuple[bool, str]:
    return known.is_general, known.name


def domain_yaml(name: str, fields: Mapping[str, Any], known: Format, data_root: Path) -> str:
    """The `domains:` entry that reads it; paths below the data root become relative."""
    source = {"format": known.name} | {key: _plain(v, data_root) for key, v in fields.items()}
    entry = {"domains": [{"name": name, "source": source}]}
    return yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, width=10_000)


def _plain(value: Any, data_root: Path) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one, data_root) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one, data_root) for key, one in value.items()}
    if isinstance(value, str) and value.startswith("/"):
        path = Path(value)
        inside = path.is_relative_to(data_root)
        return str(path.relative_to(data_root)) if inside else value
    return value


def read(recognised: Recognised, data_root: Path) -> RawTables:
    """What was recognised, to be drawn a part at a time."""
    return read_source(recognised.config(), data_root)
