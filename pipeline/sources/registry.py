"""All formats together: found in `pipeline/sources/formats/`, so that a new one is one new file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pipeline.sources import formats
from pipeline.sources.format import Format
from pipeline.sources.options import SourceOptions
from pipeline.sources.tables import RawTables


def find_formats() -> dict[str, Format]:
    """The FORMAT of every module in `pipeline.sources.formats`, by name."""
    found: dict[str, Format] = {}
    for module in sorted(pkgutil.iter_modules(formats.__path__), key=lambda module: module.name):
        name = f"{formats.__name__}.{module.name}"
        found_format = importlib.import_module(name).FORMAT
        assert found_format.name not in found, f"two formats are called {found_format.name!r}"
        found[found_format.name] = found_format
    return found


def config_type(known: Mapping[str, Format]) -> Any:
    """The type of a source in a config: the union of the formats' configs, told by `format`."""
    union = reduce(or_, (known[name].config for name in sorted(known)))
    return Annotated[union, Field(discriminator="format")]


FORMATS = find_formats()

if TYPE_CHECKING:
    # What is found at run time a type checker cannot know: it sees what all configs have.
    SourceConfig = SourceOptions
else:
    SourceConfig = config_type(FORMATS)


def read_source(config: SourceConfig, data_root: Path) -> RawTables:
    """Read one domain's raw tables, lazily.

    Args:
        config: any source.
        data_root: the folder that relative paths start from.

    Raises:
        ValueError: a file is absent; and, while parts are drawn, a column is absent or a file is
            damaged as a whole. Single bad rows do not raise: they are listed in their part.
    """
    return _format(config).read(config, data_root)


def source_fingerprint(config: SourceConfig, data_root: Path) -> str:
    """SHA-256 (hex) of what the source reads: its files' contents, not where they lie.

    For `simulated`: of its parameters and the generator's version.

    Raises:
        ValueError: a file is absent.
    """
    return _format(config).fingerprint(config, data_root)


def _format(config: SourceOptions) -> Format:
    return FORMATS[type(config).model_fields["format"].default]
