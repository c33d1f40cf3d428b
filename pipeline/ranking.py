"""Ranks of what needs no training, and metrics.json from the ranks of all models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.buckets import buckets
from pipeline.config import RunConfig
from pipeline.corpus import Corpus, DomainInfo, size_groups
from pipeline.evaluation import EvaluationConfig, Scorer, rank_targets
from pipeline.examples import save_examples
from pipeline.histories import EvaluationCases, Roles, evaluation_cases
from pipeline.metrics import Ranks
from pipeline.model_names import ORACLE
from pipeline.prepare import CORPUS, DATA
from pipeline.prepare import ORACLE as ORACLE_FOLDER
from pipeline.ranks_file import load_ranks, save_ranks
from pipeline.results import DomainFacts, assemble, to_json
from pipeline.sources.oracle import Oracle
from pipeline.splits import SplitConfig, assign_roles
from pipeline.stage_names import parsed
from pipeline.stages import StageContext
from pipeline.whole_files import read_json, write_text

METRICS = "metrics.json"


def rank_baseline(
    model: str, domains: Sequence[str], config: RunConfig, context: StageContext
) -> dict[str, Any]:
    """Rank every domain's test targets with a model that only counts, or with the truth."""
    corpus = Corpus.open(context.inputs["corpus"] / CORPUS)
    roles = assign_roles(corpus, config.split)
    for number, name in enumerate(domains):
        context.progress.update(number, len(domains), "domains", name)
        domain = corpus.domain(name)
        if model == "popularity_7d" and domain.order == "sequence":
            context.progress.note(f"{name} has no times, so it has no last 7 days: left out")
            continue
        cases = evaluation_cases(
            corpus, roles, name, "test", config.split.max_history, own_domain_only=True
        )
        if model == ORACLE:
            scorer = _oracle(corpus, name, context.inputs["corpus"] / ORACLE_FOLDER)
        else:
            scorer = _counting_scorer(model, corpus, roles, name)
        ranks = _ranked(model, domain, cases, scorer, config.evaluation)
        save_ranks(context.output, name, ranks)
        save_examples(context.output, corpus, cases, scorer, mask_seen=config.evaluation.mask_seen)
    return {}


def baseline_ranks(
    model: str, corpus: Corpus, name: str, split: SplitConfig, evaluation: EvaluationConfig
) -> Ranks:
    """Where a model that only counts puts the test targets of the domain `name`.

    Raises:
        ValueError: the model is unknown, or needs times that the domain has not.
    """
    roles = assign_roles(corpus, split)
    cases = evaluation_cases(corpus, roles, name, "test", split.max_history, own_domain_only=True)
    scorer = _counting_scorer(model, corpus, roles, name)
    return _ranked(model, corpus.domain(name), cases, scorer, evaluation)


def make_metrics(config: RunConfig, context: StageContext) -> dict[str, Any]:
    """Assemble metrics.json from the ranks of all models in all domains."""
    folder = context.inputs["corpus"]
    ranked = {stage: path for stage, path in context.inputs.items() if stage != "corpus"}
    metrics = metrics_of(config, folder, [ranked])
    write_text(context.output / METRICS, to_json(metrics))
    return {}


def metrics_of(
    config: RunConfig, corpus_folder: Path, seeds: Sequence[Mapping[str, Path]]
) -> dict[str, Any]:
    """metrics.json's dict from the outputs of rank stages.

    Args:
        config: of the run.
        corpus_folder: the output of the stage corpus.
        seeds: for each training seed, the output of each rank stage, by the stage's name.
    """
    corpus = Corpus.open(corpus_folder / CORPUS)
    roles = assign_roles(corpus, config.split)
    groups = size_groups(corpus, config.large_domains)
    counts = read_json(corpus_folder / DATA)["domains"]
    ranks: dict[str, dict[str, list[Ranks]]] = {domain.name: {} for domain in config.domains}
    for ranked in seeds:
        for stage, path in ranked.items():
            for domain, found in load_ranks(path).items():
                ranks[domain].setdefault(parsed(stage).model, []).append(found)
    facts = {
        name: DomainFacts(groups[name], count["users"], count["items"], count["interactions"])
        for name, count in counts.items()
    }
    return assemble(
        ranks,
        facts,
        config.evaluation,
        buckets={name: buckets(corpus, roles, name) for name in ranks},
        config_hash=config.results_hash(),
        data_fingerprint=corpus.fingerprint(),
    )


def _ranked(
    model: str,
    domain: DomainInfo,
    cases: EvaluationCases,
    scorer: Scorer,
    evaluation: EvaluationConfig,
) -> Ranks:
    return rank_targets(
        cases,
        domain.first_item,
        domain.n_items,
        scorer,
        model=model,
        mask_seen=evaluation.mask_seen,
        block_mb=evaluation.block_mb,
    )


def _oracle(corpus: Corpus, name: str, folder: Path) -> Scorer:
    domain = corpus.domain(name)
    oracle = Oracle.open(folder / f"{name}.npz")
    return oracle.scorer(corpus.user_keys, corpus.item_ids, domain.first_item, domain.n_items)


def _counting_scorer(model: str, corpus: Corpus, roles: Roles, domain: str) -> Scorer:
    from pipeline import baselines

    return baselines.fit(model, corpus, roles, domain)
