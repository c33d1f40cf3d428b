"""What a run would do: its stages, what is done already, sizes and resources; nothing is run.

No file is written, no Ray is started and nothing is downloaded. There is no estimate of the time:
how long a stage takes is known where it was made before, and is told there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from item_llm import ItemLLMConfig
from item_llm.base_models import PretrainedModel
from pipeline import item_vectors
from pipeline.architectures import Architecture, architecture_of, sequence_model
from pipeline.artifacts import RunStore
from pipeline.candidates import variants
from pipeline.config import ModelName, RunConfig
from pipeline.domains import DomainConfig
from pipeline.memory import RunMemory, run_memory
from pipeline.paths import data_root
from pipeline.prepare import CORPUS, DATA
from pipeline.recipe import Recipe, RecipeBuilder
from pipeline.run import places
from pipeline.stage_names import parsed
from pipeline.stages import Stage, in_order


@dataclass(frozen=True)
class PlannedStage:
    """A stage and how far it is.

    Attributes:
        stage: the stage.
        state: done: its output is reused; begun: it is resumed; to do: it is made.
        facts: what its making found out, where it is done.
    """

    stage: Stage
    state: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class SourceSize:
    """A domain's source: bytes of its files (None: it has none), its counts once it was read."""

    domain: DomainConfig
    size: int | None
    counts: Mapping[str, Any] | None


@dataclass(frozen=True)
class Plan:
    """All that `plan_text` prints.

    Attributes:
        config: of the run.
        store, folder: where outputs and results go.
        base_ready: whether the item LLM's base is there; else the run makes or downloads it first.
        stages: in the order in which they run.
        sources: in the config's order.
        texts: items with a text, of the corpus; None while there is none on this machine.
        weights: model -> weights without item vectors, for each trained model.
        memory: what one worker's trainings take; None while the base is not there.
    """

    config: RunConfig
    store: str
    folder: str
    base_ready: bool
    stages: Sequence[PlannedStage]
    sources: Sequence[SourceSize]
    texts: int | None
    weights: Mapping[ModelName, int]
    memory: RunMemory | None


def make_plan(config: RunConfig, run_dir: str | Path | None) -> Plan:
    """Look at the sources and at the run store.

    Raises:
        ValueError: what the run itself would refuse at once: an absent file, an unknown base.
    """
    store, folder = places(config, run_dir)
    recipe = RecipeBuilder(config, data_root(), store.address, _base_sha256).build()
    done = store.state(recipe.corpus.name, recipe.corpus.key) == "done"
    counts = store.read(recipe.corpus.name, recipe.corpus.key, DATA)["domains"] if done else {}
    corpus = store.at_hand(recipe.corpus.name, recipe.corpus.key)
    base_ready = not recipe.vectors or PretrainedModel.is_ready(config.item_llm.encoder.base)
    weights = _weights(config, recipe)
    tunes = recipe.item_llm is not None
    return Plan(
        config,
        store.address,
        folder.place,
        base_ready,
        [_planned(store, stage) for stage in in_order(recipe.targets)],
        [_source(domain, counts.get(domain.name)) for domain in config.domains],
        None if corpus is None else _texts(corpus),
        weights,
        run_memory(config, list(weights), tunes=tunes) if base_ready else None,
    )


def _base_sha256(llm: ItemLLMConfig) -> str:
    """As the run knows it; a base that is not there has no hash, and nothing made with it is."""
    ready = PretrainedModel.is_ready(llm.encoder.base)
    return item_vectors.base_sha256(llm) if ready else f"absent: {llm.encoder.base}"


def _planned(store: RunStore, stage: Stage) -> PlannedStage:
    state, facts = store.state(stage.name, stage.key), {}
    if state == "done":
        facts = store.manifest(stage.name, stage.key)["recipe"].get("made", {})
    return PlannedStage(stage, state, facts)


def _source(domain: DomainConfig, counts: Mapping[str, Any] | None) -> SourceSize:
    sizes = [path.stat().st_size for path in domain.source.files(data_root())]
    return SourceSize(domain, sum(sizes) if sizes else None, counts)


def _texts(corpus: Path) -> int:
    from pipeline.corpus import Corpus

    return len({text for text in Corpus.open(corpus / CORPUS).texts if text})


def _weights(config: RunConfig, recipe: Recipe) -> dict[ModelName, int]:
    """Of each trained model; of candidates that differ in size, the largest."""
    weights: dict[ModelName, int] = {}
    trained = {parsed(name).model for name in recipe.trained}
    for model in (name for name in config.models if name in trained):
        architecture = architecture_of(model, config)
        weights[model] = max(
            _size_of(model, variant)
            for _, variant in variants(architecture, architecture.candidates)
        )
    return weights


def _size_of(model: ModelName, architecture: Architecture) -> int:
    import torch

    with torch.device("meta"):  # shapes alone: no memory, whatever the size
        body = sequence_model(model, architecture)
    return sum(weight.numel() for weight in body.parameters())
