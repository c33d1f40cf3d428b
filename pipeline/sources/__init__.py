"""One file a format: raw data in, two tables a domain out."""

from pipeline.sources.ids import IdsConfig
from pipeline.sources.registry import SourceConfig
from pipeline.sources.sequences import SequencesConfig
from pipeline.sources.simulated import SimulatedConfig
from pipeline.sources.table import ColumnMap, TableConfig

__all__ = [
    "ColumnMap",
    "IdsConfig",
    "SequencesConfig",
    "SimulatedConfig",
    "SourceConfig",
    "TableConfig",
]
