"""What a run of a thousand million interactions would take: estimates, none of them measured.

What stays on CPUs comes from the fitted formulas. What runs on GPUs comes from counted FLOP and
bytes over the figures that NVIDIA gives for an H100 SXM (benchmarks.roofline), times the share of
them that is assumed to be reached. Memory of a worker is what a plan counts (pipeline.memory).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.json_worker import ROOT
from benchmarks.roofline import BYTES_A_SECOND, FLOP_A_SECOND
from benchmarks.scaling_fit import Formula
from item_llm.base_models import PretrainedModel
from pipeline.architectures import architecture_of, sequence_model
from pipeline.config import RunConfig, load
from pipeline.memory import run_memory

USERS, ITEMS, INTERACTIONS = 50_000_000, 100_000_000, 1_000_000_000
GPUS, GPUS_A_NODE = 64, 8
TOKENS_A_TEXT, CHARACTERS_A_TOKEN = 32, 4
REACHED = 0.3  # of the roofline: an assumption
GPU_BYTES = 80e9
ITEM_ID_BYTES = 80  # a Python string of 20 characters, and its place in the list
WORK_BYTES = 60  # of the corpus stage's work folder, an interaction (docs/architecture.md)
NETWORK_BYTES_A_SECOND = 50e9  # of a GPU: a port of 400 Gbit/s
SNAPSHOT_BYTES = 2  # float16, a number
LLM_PARAMETERS = 135e6  # SmolLM2-135M


@dataclass(frozen=True)
class Forecast:
    """One line: what, where it runs or stands, how it is reckoned, and how much."""

    what: str
    where: str
    reckoned: str
    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.what}: {self.value:,.3g} {self.unit} ({self.where}; {self.reckoned})"


def at_scale() -> RunConfig:
    """configs/h100x8.yaml on 64 workers."""
    overrides = [f"--compute.workers={GPUS}", "--item_llm.finetuning.pairs_per_step=16384"]
    return load(ROOT / "configs" / "h100x8.yaml", overrides)


def forecast(formulas: Sequence[Formula]) -> list[Forecast]:
    """Time and memory at that size, stage by stage."""
    config = at_scale()
    return [*_on_cpu(formulas), *_on_gpus(config), *_memory(config)]


def _on_cpu(formulas: Sequence[Formula]) -> list[Forecast]:
    by_stage = {f.stage: f.coefficients for f in formulas if f.figure == "cpu_seconds"}
    corpus, metrics = by_stage["corpus"], by_stage["metrics"]
    reading = corpus["interactions read"] * INTERACTIONS + corpus["items"] * ITEMS
    return [
        Forecast("corpus", "one core of the driver", "fitted", reading / 3600, "hours"),
        Forecast(
            "metrics, a model", "one core of the driver", "fitted with two models",
            metrics["users"] * USERS / 2 / 3600, "hours",
        ),
    ]  # fmt: skip


def _seconds(flop: float, moved: float = 0.0) -> float:
    return max(flop / FLOP_A_SECOND, moved / BYTES_A_SECOND) / (GPUS * REACHED)


def _on_gpus(config: RunConfig) -> list[Forecast]:
    architecture = architecture_of("hydra_joint", config)
    training, finetuning = architecture.training, config.item_llm.finetuning
    with torch.device("meta"):
        body = sequence_model("hydra_joint", architecture)
    weights = sum(weight.numel() for weight in body.parameters())
    d = config.user_model.dim
    texts = 2 * (finetuning.max_steps or 0) * finetuning.pairs_per_step * TOKENS_A_TEXT
    tuned = _seconds(4 * LLM_PARAMETERS * texts)
    encoded = _seconds(2 * LLM_PARAMETERS * ITEMS * TOKENS_A_TEXT)
    token = 6 * weights + 6 * training.negatives * d
    trained = _seconds(token * training.epochs * INTERACTIONS)
    scores = float(USERS) * ITEMS
    ranked = _seconds(2 * d * scores, moved=4 * scores)
    # Every worker gets the gradient of each id row that anybody touched, in a ring.
    tiles = training.batch_tokens // training.negatives_tile
    rows = 2 * training.batch_tokens + tiles * training.negatives
    exchanged = 2 * 4 * rows * d
    steps = training.epochs * INTERACTIONS / training.batch_tokens
    exchanging = steps * exchanged / NETWORK_BYTES_A_SECOND
    return [
        Forecast("item_llm", f"{GPUS} GPUs", "4 FLOP a weight and token", tuned / 60, "minutes"),
        Forecast("vectors", f"{GPUS} GPUs", "2 FLOP a weight and token", encoded / 60, "minutes"),
        Forecast(
            "train.hydra_joint", f"{GPUS} GPUs",
            "6 FLOP a weight and token, and the negatives' scores", trained / 60, "minutes",
        ),
        Forecast(
            "train.hydra_joint, id rows sent a step", "each GPU",
            "8 bytes a number of every row touched", exchanged / 1e9, "GB",
        ),
        Forecast(
            "train.hydra_joint, sending them", "each GPU", "at 50 GB/s", exchanging / 60, "minutes"
        ),
        Forecast(
            "rank.hydra_joint, if it were shared by all", f"{GPUS} GPUs",
            "2 d FLOP a score, or 4 bytes written", ranked / 60, "minutes",
        ),
        Forecast(
            "rank.hydra_joint, as it is", "one GPU", "the same", GPUS * ranked / 3600, "hours",
        ),
    ]  # fmt: skip


def _memory(config: RunConfig) -> list[Forecast]:
    width = PretrainedModel.find(config.item_llm.encoder.base).dim()
    memory = run_memory(config, ["hydra_joint"], tunes=True)
    model, llm = memory.models["hydra_joint"], memory.item_llm
    assert llm is not None
    rest = model.total(0)
    snapshot = ITEMS * width * SNAPSHOT_BYTES
    return [
        Forecast("item_llm", "each GPU", "counted by --plan", llm.total / 1e9, "GB"),
        Forecast(
            "user model without items", "each GPU", "counted by --plan", rest / 1e9, "GB"
        ),
        Forecast("one item", "each GPU", "id, copy, moments, text vector", model.item, "bytes"),
        Forecast("item table", "each GPU", "bytes of an item", ITEMS * model.item / 1e9, "GB"),
        Forecast(
            "items that fit a GPU of 80 GB", "each GPU", "what is left over an item's bytes",
            (GPU_BYTES - rest) / model.item / 1e6, "million",
        ),
        Forecast(
            "item table, shared by all", "each GPU", "the table / 64",
            ITEMS * model.item / GPUS / 1e9, "GB",
        ),
        Forecast(
            "snapshot of the vectors", "each node, mapped", "float16", snapshot / 1e9, "GB"
        ),
        Forecast(
            "item ids", "the driver", f"{ITEM_ID_BYTES} bytes an item",
            ITEMS * ITEM_ID_BYTES / 1e9, "GB",
        ),
        Forecast(
            "work folder of the corpus", "the driver's disk", f"{WORK_BYTES} bytes an interaction",
            INTERACTIONS * WORK_BYTES / 1e9, "GB",
        ),
    ]  # fmt: skip
