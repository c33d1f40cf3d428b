"""Which trackers follow a run, and how much of its time they get."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrackingConfig(BaseModel):
    """Who follows the run, beside RUN/tracking.jsonl, which is always written.

    None of this changes a result, and no tracker can fail a run or hold it up.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensorboard: bool = Field(False, description="write TensorBoard's files to RUN/tensorboard")
    mlflow: bool = Field(False, description="log to MLflow (pip install 'hydrarec[mlflow]')")
    mlflow_uri: str | None = Field(
        None, description="MLflow's server or store; null: files in RUN/mlruns"
    )
    mlflow_experiment: str = Field(
        "hydrarec", min_length=1, description="MLflow's experiment; made if absent"
    )
    wandb: bool = Field(
        False, description="log to Weights & Biases (pip install 'hydrarec[wandb]')"
    )
    wandb_mode: Literal["online", "offline"] = Field(
        "offline", description="offline: files in RUN/wandb, for `wandb sync` later"
    )
    wandb_project: str = Field("hydrarec", min_length=1, description="the project there")
    queue_records: int = Field(
        10_000, ge=1, description="records that may wait for a slow tracker; more are dropped"
    )
    finish_seconds: float = Field(
        30.0, ge=0, description="seconds that the trackers get at the run's end, all together"
    )
