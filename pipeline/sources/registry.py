"""All formats together: the union of their configs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.sources.ids import IdsConfig
from pipeline.sources.sequences import SequencesConfig
from pipeline.sources.simulated import SimulatedConfig
from pipeline.sources.table import TableConfig

SourceConfig = Annotated[
    SequencesConfig | IdsConfig | TableConfig | SimulatedConfig, Field(discriminator="format")
]
