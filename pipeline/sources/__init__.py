"""One file a format: raw data in, two tables a domain out."""

from pipeline.sources.ids import IdsConfig
from pipeline.sources.oracle import Oracle
from pipeline.sources.registry import SourceConfig, read_source, source_fingerprint
from pipeline.sources.sequences import SequencesConfig
from pipeline.sources.simulated import SimulatedConfig, marketplace, simulated_oracle
from pipeline.sources.table import ColumnMap, TableConfig

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
