"""The stages of a multi-domain run, and what each of them reads.

    corpus ── item_llm ── vectors ─┬─ train.hydra_joint ─── rank.hydra_joint ──┐
       │                           └─ train.MODEL.DOMAIN ── rank.MODEL.DOMAIN ─┼─ metrics
       └─────────────────────────────────────── rank.BASELINE.DOMAIN ──────────┘

A tuned item LLM gets a stage `neighbours` for the report, which nothing else reads.
Models of ids alone need no vectors; hydra_frozen reads the untuned encoder's (vectors_frozen).
Where settings or epochs are chosen on validation, stages try.MODEL.DOMAIN.SETTINGS stand before
train.MODEL.DOMAIN (trained_stages.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from item_llm import ItemLLMConfig
from pipeline import item_vectors, prepare, ranking
from pipeline.config import BASELINES, JOINT_MODELS, TEXT_MODELS, ModelName, RunConfig
from pipeline.model_names import ORACLE
from pipeline.sources.simulated import has_oracle
from pipeline.stage_names import rank_stage
from pipeline.stages import Stage, StageContext
from pipeline.trained_stages import RANKS, ranking_stage, trained_stage
from pipeline.workers.neighbours import neighbours_on_cluster
from user_model.config_keys import key_fields

_VECTORS = 2  # version of the snapshot's layout: 2 added its type
_METRICS = 3  # version of metrics.json: 2 added buckets and p-values, 3 buckets of "taken"


@dataclass(frozen=True)
class Recipe:
    """The stages of one run.

    Attributes:
        corpus: raw data -> Corpus.
        item_llm: pairs of texts -> adapter; None where the encoder is frozen or pinned.
        vectors: texts -> item vectors, by encoder ("tuned", "frozen").
        trained: one for each model and scope, by stage name.
        ranked: the same, and the baselines.
        metrics: ranks -> metrics.json.
        neighbours: nearest items before and after tuning; None where nothing was tuned.
    """

    corpus: Stage
    item_llm: Stage | None
    vectors: Mapping[str, Stage]
    trained: Mapping[str, Stage]
    ranked: Mapping[str, Stage]
    metrics: Stage
    neighbours: Stage | None

    @property
    def targets(self) -> list[Stage]:
        """The stages that nothing else reads, and the vectors: all others stand below them."""
        extras = [self.neighbours] if self.neighbours else []
        return [*self.vectors.values(), self.metrics, *extras]


class RecipeBuilder:
    """Builds the stages of a run from its config.

    Args:
        config: the run's configuration.
        data_root: the folder that the sources' relative paths start from.
        store: the run store's folder or address; the item vectors' cache stands in it.
        base_sha256: gives the hash of a base model's weights; a plan's makes no files.
    """

    def __init__(
        self,
        config: RunConfig,
        data_root: Path,
        store: str | Path,
        base_sha256: Callable[[ItemLLMConfig], str] = item_vectors.base_sha256,
    ) -> None:
        self.config, self.data_root, self.store = config, data_root, store
        self.base_sha256 = base_sha256
        self._trained: dict[str, Stage] = {}
        self._ranked: dict[str, Stage] = {}

    def build(self) -> Recipe:
        """All stages of the run.

        Raises:
            ValueError: a source's file is absent, or the encoder cannot be found.
        """
        corpus = self._corpus()
        item_llm = self._item_llm(corpus)
        vectors = self._vectors(corpus, item_llm)
        for model in self.config.models:
            self._add_model(model, corpus, vectors)
        if domains := self._domains_with_oracle():
            self._add_ranking(ORACLE, corpus, domains)
        metrics = self._metrics(corpus)
        neighbours = self._neighbours(corpus, vectors)
        return Recipe(corpus, item_llm, vectors, self._trained, self._ranked, metrics, neighbours)

    def _corpus(self) -> Stage:
        config, root = self.config, self.data_root

        def make(context: StageContext) -> Mapping[str, Any]:
            return prepare.make_corpus(config, root, context)

        recipe = {
            "domains": [domain.model_dump(mode="json") for domain in config.domains],
            "sources": prepare.source_fingerprints(config, root),
            "seed": config.sampling_seed,  # of the choice of users under max_users
        }
        if config.poor_text is not None:
            recipe["poor_text"] = config.poor_text.model_dump(mode="json")
        return Stage("corpus", recipe, make)

    def _item_llm(self, corpus: Stage) -> Stage | None:
        config = self.config
        if not self._wanted_encoders() & {"tuned"} or config.item_llm.lora is None:
            return None
        if config.item_llm.adapter is not None:
            return None

        def make(context: StageContext) -> Mapping[str, Any]:
            return item_vectors.finetune_on_cluster(config, context)

        tuned_on = config.pairs.domains or [domain.name for domain in config.domains]
        split = config.split.for_domains(tuned_on)
        recipe = {
            "item_llm": key_fields(config.item_llm, exclude={"adapter"}),
            "base": self.base_sha256(config.item_llm),
            "pairs": key_fields(config.pairs),
            "split": key_fields(split, exclude={"max_history"}),
            "seed": config.seed,
        }
        return Stage("item_llm", recipe, make, (corpus,), slots=config.compute.workers)

    def _vectors(self, corpus: Stage, item_llm: Stage | None) -> dict[str, Stage]:
        stages = {}
        for encoder in sorted(self._wanted_encoders()):
            tuned = encoder == "tuned"
            needs = (corpus, item_llm) if tuned and item_llm else (corpus,)
            stages[encoder] = self._vector_stage(encoder, needs)
        return stages

    def _vector_stage(self, encoder: str, inputs: tuple[Stage, ...]) -> Stage:
        config, cache = self.config, item_vectors.cache_place(self.config.vectors, self.store)
        llm = config.item_llm if encoder == "tuned" else _frozen(config.item_llm)

        def make(context: StageContext) -> Mapping[str, Any]:
            return item_vectors.encode_corpus(
                llm, config.compute, cache, config.vectors_dtype, context
            )

        recipe = {
            "encoder": llm.encoder.model_dump(mode="json", exclude={"batch_tokens"}),
            "base": self.base_sha256(llm),
            "adapter": item_vectors.pinned_adapter_sha256(llm),
            "dtype": config.vectors_dtype,
        }
        name = "vectors" if encoder == "tuned" else "vectors_frozen"
        slots = config.compute.workers
        return Stage(name, recipe, make, inputs, version=_VECTORS, slots=slots)

    def _add_model(self, model: ModelName, corpus: Stage, vectors: Mapping[str, Stage]) -> None:
        if model in BASELINES:
            self._add_ranking(model, corpus, [domain.name for domain in self.config.domains])
        elif model in JOINT_MODELS:
            self._add_trained(model, None, corpus, vectors)
        else:
            for domain in self.config.domains:
                # Of a new domain, nobody's events are there to train on it alone.
                if self.config.split.people_of(domain.name) > 0:
                    self._add_trained(model, domain.name, corpus, vectors)

    def _add_trained(
        self, model: ModelName, domain: str | None, corpus: Stage, vectors: Mapping[str, Stage]
    ) -> None:
        encoder = encoder_of(model)
        inputs = (corpus, vectors[encoder]) if encoder else (corpus,)
        train = trained_stage(model, domain, inputs, self.config)
        rank = ranking_stage(model, domain, (*inputs, train), self.config)
        self._trained[train.name] = train
        self._ranked[rank.name] = rank

    def _add_ranking(self, model: str, corpus: Stage, domains: list[str]) -> None:
        config = self.config

        def make(context: StageContext) -> Mapping[str, Any]:
            return ranking.rank_baseline(model, domains, config, context)

        recipe = {
            "model": model,
            "domains": domains,
            "split": key_fields(config.split),
            "mask_seen": config.evaluation.mask_seen,
        }
        stage = Stage(rank_stage(model), recipe, make, (corpus,), version=RANKS)
        self._ranked[stage.name] = stage

    def _metrics(self, corpus: Stage) -> Stage:
        config = self.config

        def make(context: StageContext) -> Mapping[str, Any]:
            return ranking.make_metrics(config, context)

        recipe = {
            "evaluation": config.evaluation.model_dump(mode="json"),
            "large_domains": config.large_domains,
            "config_hash": config.results_hash(),
        }
        inputs = (corpus, *self._ranked.values())
        return Stage("metrics", recipe, make, inputs, version=_METRICS)

    def _neighbours(self, corpus: Stage, vectors: Mapping[str, Stage]) -> Stage | None:
        config, llm = self.config, self.config.item_llm
        if "tuned" not in vectors or (llm.lora is None and llm.adapter is None):
            return None

        def make(context: StageContext) -> Mapping[str, Any]:
            return neighbours_on_cluster(llm.encoder, config.compute, context)

        recipe = {
            "encoder": llm.encoder.model_dump(mode="json", exclude={"batch_tokens"}),
            "base": self.base_sha256(llm),
        }
        return Stage("neighbours", recipe, make, (corpus, *vectors.values()))

    def _wanted_encoders(self) -> set[str]:
        return {encoder for model in self.config.models if (encoder := encoder_of(model))}

    def _domains_with_oracle(self) -> list[str]:
        return [domain.name for domain in self.config.domains if has_oracle(domain.source)]


def encoder_of(model: str) -> str | None:
    """Whose vectors a model reads: "tuned", "frozen" (hydra_frozen) or None (ids alone)."""
    if model not in TEXT_MODELS:
        return None
    return "frozen" if model == "hydra_frozen" else "tuned"


def _frozen(config: ItemLLMConfig) -> ItemLLMConfig:
    return config.model_copy(update={"lora": None, "adapter": None})
