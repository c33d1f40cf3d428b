"""From ranks to metrics.json: every domain, every model, their differences, and the groups.

    {"domains": {NAME: {"size_group", "users", "items", "interactions", "evaluated_users",
                        "models": {MODEL: {METRIC: mean, .., "ci95": {METRIC: [low, high]}}},
                        "deltas": {MODEL: {"against": MODEL, "ndcg@10": d, "ci95": [low, high],
                                           "negative_transfer": bool}},
                        "comparisons": {MODEL: {OTHER: {"ndcg@10": d, "ci95": [low, high]}}}}},
     "groups": {"large" | "small" | "all": {MODEL: {METRIC: mean, .., "ci95": {..}}}},
     "group_deltas": {GROUP: the same as "deltas", over the group's domains},
     "evaluation": the config, "config_hash": .., "data_fingerprint": ..}

* `deltas` holds hydra_joint against hydra_single where both were run: the question of transfer.
  `comparisons` holds hydra_joint against every other model but the oracle.
* A group's figure is the mean over its domains, each counting the same. A model enters a group
  only if every domain of the group has it: averages over other domains could not be compared.
* No times and no paths; floats have 6 significant digits, far below any interval's width, so
  that a last bit that depends on the number of threads does not change the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.corpus import SizeGroup
from pipeline.evaluation import EvaluationConfig
from pipeline.metrics import Ranks, per_user
from pipeline.model_names import JOINT, ORACLE, SINGLE, in_order
from pipeline.statistics import Estimate, estimate_means, macro_average, named_seed

COMPARED_BY = "ndcg@10"


@dataclass(frozen=True)
class DomainFacts:
    """What metrics.json says of a domain beside the models' figures."""

    size_group: SizeGroup
    users: int
    items: int
    interactions: int


@dataclass(frozen=True)
class _Estimates:
    """Of one domain, or of one group of domains."""

    figures: dict[tuple[str, str], Estimate]  # by (model, metric)
    joint_minus: dict[str, Estimate]  # by the other model; NDCG@10


def assemble(
    ranks: Mapping[str, Mapping[str, Ranks]],
    facts: Mapping[str, DomainFacts],
    config: EvaluationConfig,
    *,
    config_hash: str,
    data_fingerprint: str,
) -> dict[str, Any]:
    """Build metrics.json's dict; equal inputs give equal dicts.

    Args:
        ranks: domain -> model -> ranks of the same users in the same order.
        facts: domain -> its sizes and group.
        config: cut-offs, resamples and seed.
        config_hash: of the whole run's config.
        data_fingerprint: of the corpus.

    Raises:
        ValueError: a domain without users or facts, or models ranked on other numbers of users.
    """
    domains = {name: _estimate(name, models, config) for name, models in ranks.items()}
    groups = {
        group: _macro([domains[name] for name in names])
        for group, names in _members({name: facts[name].size_group for name in ranks}).items()
    }
    metrics = {
        "domains": {
            name: asdict(facts[name])
            | {"evaluated_users": len(next(iter(ranks[name].values())))}
            | {"models": _models(domain), "deltas": _deltas(domain)}
            | {"comparisons": _comparisons(domain)}
            for name, domain in domains.items()
        },
        "groups": {group: _models(estimates) for group, estimates in groups.items()},
        "group_deltas": {group: _deltas(estimates) for group, estimates in groups.items()},
        "evaluation": config.model_dump(mode="json", exclude={"block_mb"}),
        "config_hash": config_hash,
        "data_fingerprint": data_fingerprint,
    }
    return dict(_rounded(metrics))


def to_json(metrics: Mapping[str, Any]) -> str:
    """The text of metrics.json: sorted keys, so that equal dicts give equal bytes."""
    return json.dumps(metrics, sort_keys=True, indent=1, allow_nan=False) + "\n"


def share_of_oracle(models: Mapping[str, Mapping[str, Any]], model: str) -> float | None:
    """The model's NDCG@10 over the oracle's; None without an oracle or with one that scores 0.

    >>> share_of_oracle({"oracle": {"ndcg@10": 0.5}, "sasrec": {"ndcg@10": 0.4}}, "sasrec")
    0.8
    """
    ceiling = models.get(ORACLE, {}).get(COMPARED_BY)
    if not ceiling or model not in models:
        return None
    return float(models[model][COMPARED_BY] / ceiling)


def _estimate(domain: str, models: Mapping[str, Ranks], config: EvaluationConfig) -> _Estimates:
    """Every metric of every model, and the joint model's differences, from one bootstrap."""
    counts = {model: len(ranks) for model, ranks in models.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(
            f"results of {domain}: the numbers of users ranked are {counts or 'absent'}; every "
            "model must rank the same users, 1 or more"
        )
    figures = {
        (model, metric): values
        for model in in_order(models)
        for metric, values in per_user(models[model], config.ks).items()
    }
    joint_minus = {
        other: figures[JOINT, COMPARED_BY] - figures[other, COMPARED_BY]
        for other in in_order(models)
        if JOINT in models and other not in (JOINT, ORACLE)
    }
    table_nM = np.stack([*figures.values(), *joint_minus.values()], axis=1)
    seed = named_seed(config.seed, domain)
    estimates = estimate_means(table_nM, config.bootstrap_resamples, seed)
    return _Estimates(
        dict(zip(figures, estimates[: len(figures)], strict=True)),
        dict(zip(joint_minus, estimates[len(figures) :], strict=True)),
    )


def _macro(domains: Sequence[_Estimates]) -> _Estimates:
    """Average over the domains what all of them have."""
    figures = [domain.figures for domain in domains]
    joint_minus = [domain.joint_minus for domain in domains]
    return _Estimates(
        {
            key: macro_average([each[key] for each in figures])
            for key in figures[0]
            if all(key in each for each in figures)
        },
        {
            other: macro_average([each[other] for each in joint_minus])
            for other in joint_minus[0]
            if all(other in each for each in joint_minus)
        },
    )


def _members(size_group: Mapping[str, SizeGroup]) -> dict[str, list[str]]:
    """Domains of each group that has any."""
    groups: dict[str, list[str]] = {"large": [], "small": [], "all": list(size_group)}
    for name, group in size_group.items():
        groups[group].append(name)
    return {group: names for group, names in groups.items() if names}


def _models(estimates: _Estimates) -> dict[str, Any]:
    models: dict[str, Any] = {}
    for (model, metric), estimate in estimates.figures.items():
        figures = models.setdefault(model, {"ci95": {}})
        figures[metric] = estimate.mean
        figures["ci95"][metric] = _bounds(estimate)
    return models


def _deltas(estimates: _Estimates) -> dict[str, Any]:
    if SINGLE not in estimates.joint_minus:
        return {}
    delta = estimates.joint_minus[SINGLE]
    return {
        JOINT: {
            "against": SINGLE,
            COMPARED_BY: delta.mean,
            "ci95": _bounds(delta),
            "negative_transfer": delta.is_below_zero,
        }
    }


def _comparisons(estimates: _Estimates) -> dict[str, Any]:
    compared = {
        other: {COMPARED_BY: delta.mean, "ci95": _bounds(delta)}
        for other, delta in estimates.joint_minus.items()
    }
    return {JOINT: compared} if compared else {}


def _bounds(estimate: Estimate) -> list[float]:
    interval = estimate.interval
    return [interval.low, interval.high]


def _rounded(value: Any) -> Any:
    """The same structure with floats of 6 significant digits (and no negative zero)."""
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.6g}") + 0.0 if isinstance(value, float) else value
