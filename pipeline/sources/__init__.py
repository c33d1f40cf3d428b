"""One file a format: raw data in, two tables a domain out."""

from pipeline.sources.column_map import ColumnMap
from pipeline.sources.formats.ids import IdsConfig
from pipeline.sources.formats.sequences import SequencesConfig
from pipeline.sources.formats.table import TableConfig
from pipeline.sources.oracle import Oracle
from pipeline.sources.registry import SourceConfig, read_source, source_fingerprint
from pipeline.sources.simulated import SimulatedConfig, marketplace, simulated_oracle

__all__ = [
    "ColumnMap",
    "IdsConfig",
    "Oracle",
    "SequencesConfig",
    "SimulatedConfig",
    "SourceConfig",
    "TableConfig",
    "marketplace",
    "read_source",
    "simulated_oracle",
    "source_fingerprint",
]
