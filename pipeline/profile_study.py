"""The profile: time and memory of a training step over the length of the histories.

Every (model, length) is measured in a process of its own, which packs `tokens` random item vectors
into sequences of that length and runs the sequence model forward and backward: what the paper's
cost of O(n v d_c^2) against O(n^2 d) comes to in seconds and bytes. The item table, the loss and
the optimiser are left out; they cost the same for all.
Shapes: T packed tokens, S sequences, d model width.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.architectures import Architecture, architecture_of, sequence_model
from pipeline.config import BASELINES, TEXT_MODELS, TIMED_MODELS, ModelName, RunConfig
from pipeline.config_mistakes import describe_mistakes
from pipeline.resident_memory import peak_extra_bytes
from pipeline.sources.options import checked_name
from pipeline.strict_yaml import load_mapping
from pipeline.whole_files import content_hash


class ProfileConfig(BaseModel):
    """What is measured: models of a run's config, at these lengths."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="the study's name")
    title: str = Field(description="the heading of its table")
    kind: str = Field("profile", pattern="^profile$", description="tells it from other studies")
    run: dict[str, Any] = Field(description="fields of a run's config that describe the models")
    models: tuple[ModelName, ...] = Field(
        min_length=1, description="models of ids alone; the others are compared with the first"
    )
    lengths: tuple[int, ...] = Field(min_length=1, description="events of each sequence")
    tokens: int = Field(16384, ge=1, description="events of a step, in whole sequences")
    repetitions: int = Field(5, ge=1, description="timed steps; their median counts")
    threads: int = Field(1, ge=1, description="threads of torch")

    @model_validator(mode="after")
    def _is_sound(self) -> ProfileConfig:
        checked_name(self.name, "the study's name")
        for model in self.models:
            if model in (*BASELINES, *TEXT_MODELS, *TIMED_MODELS):
                raise ValueError(
                    f"models: got {model}, expected some that are trained from ids alone, without "
                    "times, such as hydra_ids or sasrec"
                )
        if min(self.lengths) < 1 or max(self.lengths) > self.tokens:
            raise ValueError(
                f"lengths: got {min(self.lengths)} to {max(self.lengths)}, expected 1 to the "
                f"{self.tokens} of tokens"
            )
        return self

    def architecture(self, model: ModelName, length: int) -> Architecture:
        """A model's shape, with as many positions as the length asks for."""
        found = architecture_of(model, self._run_config())
        if "max_positions" in type(found).model_fields:
            return found.model_copy(update={"max_positions": length})
        return found

    def config_hash(self) -> str:
        """SHA-256 (hex) of all that decides what is measured."""
        shapes = [self.architecture(model, 1).model_dump(mode="json") for model in self.models]
        return content_hash([self.model_dump(mode="json", exclude={"title"}), shapes])

    def _run_config(self) -> RunConfig:
        # A run needs a domain; none is read here.
        domain = {"name": "none", "source": {"format": "ids", "path": "none"}}
        try:
            return RunConfig.model_validate({"domains": [domain], **self.run})
        except ValidationError as error:
            raise ValueError(describe_mistakes(error, RunConfig, "run")) from error


class Measured(BaseModel):
    """One (model, length).

    Attributes:
        model: its name.
        length: events of a sequence.
        tokens: events of a step: whole sequences.
        seconds: of each timed step, forward and backward.
        peak_bytes: what a step adds to the process's resident memory at its highest.
        parameters: weights of the sequence model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName
    length: int
    tokens: int
    seconds: tuple[float, ...]
    peak_bytes: int
    parameters: int

    @property
    def microseconds(self) -> float:
        """Median time of an event of a step."""
        return statistics.median(self.seconds) / self.tokens * 1e6

    @property
    def bytes_per_event(self) -> float:
        """Peak memory of an event of a step."""
        return self.peak_bytes / self.tokens


def load_profile(path: Path) -> ProfileConfig:
    """Read a profile's YAML file and check its models.

    Raises:
        ValueError: one sentence a mistake.
    """
    try:
        config = ProfileConfig.model_validate(load_mapping(path))
    except ValidationError as error:
        raise ValueError(describe_mistakes(error, ProfileConfig, str(path))) from error
    config.config_hash()
    return config


def measure(config: ProfileConfig, model: ModelName, length: int) -> Measured:
    """Measure in a fresh process, whose memory is nobody else's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (config, model, length))


def _measure(config: ProfileConfig, model: ModelName, length: int) -> Measured:
    torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    architecture = config.architecture(model, length)
    network = sequence_model(model, architecture).train()
    sequences = config.tokens // length
    cu_seqlens = torch.arange(sequences + 1) * length
    vectors_Td = torch.randn(sequences * length, architecture.dim, requires_grad=True)
    cotangent_Td = torch.randn_like(vectors_Td)

    def step() -> None:
        network.zero_grad(set_to_none=True)
        vectors_Td.grad = None
        network(vectors_Td, cu_seqlens).backward(cotangent_Td)

    step()  # compiles, and allocates what is allocated once
    peak, _ = peak_extra_bytes(step)
    seconds = []
    for _ in range(config.repetitions):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return Measured(
        model=model, length=length, tokens=sequences * length, seconds=tuple(seconds),
        peak_bytes=peak, parameters=sum(p.numel() for p in network.parameters()),
    )  # fmt: skip
