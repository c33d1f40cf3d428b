"""The external trackers, and which of them a config asks for.

A new one is a file with a class that fits `records.Tracker`, a line here, and a field in
`config.TrackingConfig`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.tracking.config import TrackingConfig


@dataclass(frozen=True)
class External:
    """A tracker that runs in a process of its own.

    Attributes:
        name: its field in the config, and its name in messages.
        place: `module:Class`; it is imported in the tracker's process alone.
        needs: the package that must be installed for it.
        settings: the class's keyword arguments; they travel as JSON.
    """

    name: str
    place: str
    needs: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def wanted(config: TrackingConfig) -> list[External]:
    """The external trackers that a config asks for.

    Raises:
        ValueError: one of them is not installed; the message says how to install it.
    """
    all_of_them = (
        (
            config.tensorboard,
            External(
                "tensorboard",
                "pipeline.tracking.tensorboard_tracker:TensorBoardTracker",
                "tensorboardX",
            ),
        ),
        (
            config.mlflow,
            External(
                "mlflow",
                "pipeline.tracking.mlflow_tracker:MLflowTracker",
                "mlflow",
                {"uri": config.mlflow_uri, "experiment": config.mlflow_experiment},
            ),
        ),
        (
            config.wandb,
            External(
                "wandb",
                "pipeline.tracking.wandb_tracker:WandbTracker",
                "wandb",
                {"mode": config.wandb_mode, "project": config.wandb_project},
            ),
        ),
    )
    chosen = [external for is_wanted, external in all_of_them if is_wanted]
    for external in chosen:
        _check_installed(external)
    return chosen


def _check_installed(external: External) -> None:
    if importlib.util.find_spec(external.needs) is None:
        install = "hydrarec" if external.name == "tensorboard" else f"hydrarec[{external.name}]"
        raise ValueError(
            f"tracking.{external.name} is true, but the package {external.needs} is not "
            f"installed; run `pip install '{install}'`, or leave tracking.{external.name} out"
        )
