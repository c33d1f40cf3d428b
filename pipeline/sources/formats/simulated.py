"""The `simulated` format: `pipeline.sources.simulated` as one of the formats."""

from __future__ import annotations

from pathlib import Path

from pipeline.sources.format import Format
from pipeline.sources.simulated import GENERATOR_VERSION, SimulatedConfig, read_simulated
from pipeline.sources.tables import RawTables
from pipeline.whole_files import content_hash


def _read(config: SimulatedConfig, data_root: Path) -> RawTables:
    return read_simulated(config)


def _fingerprint(config: SimulatedConfig, data_root: Path) -> str:
    return content_hash({"generator": GENERATOR_VERSION, **config.model_dump(mode="json")})


FORMAT = Format(
    config=SimulatedConfig,
    read=_read,
    summary="an invented marketplace whose truth is known; reads no files",
    fingerprint=_fingerprint,
)
