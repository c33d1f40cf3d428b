"""All formats together: the union of their configs, one function to read them, one to name them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.artifacts import content_hash, file_sha256
from pipeline.sources.ids import IdsConfig, read_ids
from pipeline.sources.options import existing_file
from pipeline.sources.sequences import SequencesConfig, read_sequences
from pipeline.sources.simulated import GENERATOR_VERSION, SimulatedConfig, read_simulated
from pipeline.sources.table import TableConfig, read_table
from pipeline.sources.tables import RawTables

SourceConfig = Annotated[
    SequencesConfig | IdsConfig | TableConfig | SimulatedConfig, Field(discriminator="format")
]


def read_source(config: SourceConfig, data_root: Path) -> RawTables:
    """Read one domain's raw tables.

    Args:
        config: any source.
        data_root: the folder that relative paths start from.

    Raises:
        ValueError: a file or column is absent, or a file is damaged as a whole. Single bad rows
            do not raise: they are listed in the result.
    """
    match config:
        case SequencesConfig():
            return read_sequences(config, data_root)
        case IdsConfig():
            return read_ids(config, data_root)
        case TableConfig():
            return read_table(config, data_root)
        case SimulatedConfig():
            return read_simulated(config)


def source_fingerprint(config: SourceConfig, data_root: Path) -> str:
    """SHA-256 (hex) of what the source reads: its files' contents, not where they lie.

    For `simulated`: of its parameters and the generator's version.

    Raises:
        ValueError: a file is absent.
    """
    if isinstance(config, SimulatedConfig):
        return content_hash({"generator": GENERATOR_VERSION, **config.model_dump(mode="json")})
    files = [existing_file(file, config.describe()) for file in config.files(data_root)]
    return content_hash([file_sha256(file) for file in files])
