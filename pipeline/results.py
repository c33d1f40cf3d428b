"""From ranks to metrics.json: every domain, every model, their differences, and the groups.

    {"domains": {NAME: {"size_group", "users", "items", "interactions", "evaluated_users",
                        "models": {MODEL: {METRIC: mean, .., "ci95": {METRIC: [low, high]}}},
                        "deltas": {MODEL: {"against": MODEL, "ndcg@10": d, "ci95": [low, high],
                                           "negative_transfer": bool, "relative": d / other's,
                                           "p": .., "p_holm": .., "effect_size": ..}},
                        "comparisons": {MODEL: {OTHER: the same without "against" and marks}},
                        "buckets": {GROUP: {BUCKET: {"users", "models", "deltas"}}}}},
     "groups": {"large" | "small" | "all": {MODEL: {METRIC: mean, .., "ci95": {..}}}},
     "group_deltas": {GROUP: the same as "deltas", over the group's domains},
     "group_comparisons": {GROUP: the same as "comparisons"},
     "evaluation": the config, "config_hash": .., "data_fingerprint": ..}

* `deltas` holds hydra_joint against hydra_single where both were run: the question of transfer.
  `comparisons` holds hydra_joint against every other model but the oracle.
* `negative_transfer` marks a 95% interval below 0. `p` is of the same bootstrap, `p_holm` adjusted
  over the domains (Holm), `effect_size` in standard deviations of the users' differences.
* Of several training seeds, each user's figures are averaged first; "seeds" of a model then holds
  NDCG@10 of each seed.
* `buckets` splits the domain's users (buckets.py); NDCG@10 alone, and nothing of fewer than
  FEWEST_USERS: a bootstrap of one user is as narrow as can be.
* A group's figure is the mean over its domains, each counting the same. A model enters a group
  only if every domain of the group has it: averages over other domains could not be compared.
* No times and no paths; floats have 6 significant digits, far below any interval's width, so
  that a last bit that depends on the number of threads does not change the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.buckets import Buckets
from pipeline.corpus import SizeGroup
from pipeline.estimates import (
    COMPARED_BY,
    Estimates,
    SeedRanks,
    UserValues,
    average,
    estimate,
    of_users,
    user_values,
)
from pipeline.evaluation import EvaluationConfig
from pipeline.metrics import ndcg
from pipeline.model_names import JOINT, ORACLE, SINGLE
from pipeline.statistics import Estimate, holm, named_seed

FEWEST_USERS = 20  # of a bucket that has figures


@dataclass(frozen=True)
class DomainFacts:
    """What metrics.json says of a domain beside the models' figures."""

    size_group: SizeGroup
    users: int
    items: int
    interactions: int


def assemble(
    ranks: Mapping[str, SeedRanks],
    facts: Mapping[str, DomainFacts],
    config: EvaluationConfig,
    *,
    buckets: Mapping[str, Buckets],
    config_hash: str,
    data_fingerprint: str,
) -> dict[str, Any]:
    """Build metrics.json's dict; equal inputs give equal dicts.

    Args:
        ranks: domain -> model -> ranks of each training seed, of the same users in the same order.
        facts: domain -> its sizes and group.
        config: cut-offs, resamples and seed.
        buckets: domain -> its users' buckets, in the order of the ranks.
        config_hash: of the whole run's config.
        data_fingerprint: of the corpus.

    Raises:
        ValueError: a domain without users or facts, or models ranked on other numbers of users.
    """
    values = {name: user_values(name, models, config.ks) for name, models in ranks.items()}
    domains = {name: _estimate(name, found, config) for name, found in values.items()}
    groups = {
        group: average([domains[name] for name in names])
        for group, names in _members({name: facts[name].size_group for name in ranks}).items()
    }
    comparisons = _adjusted({name: _comparisons(domain) for name, domain in domains.items()})
    metrics = {
        "domains": {
            name: asdict(facts[name])
            | {"evaluated_users": _n_users(values[name])}
            | {"models": _models(domain, ranks[name]), "deltas": _deltas(comparisons[name])}
            | {"comparisons": {JOINT: comparisons[name]} if comparisons[name] else {}}
            | {"buckets": _buckets(name, values[name], buckets.get(name, {}), config)}
            for name, domain in domains.items()
        },
        "groups": {group: _models(found) for group, found in groups.items()},
        "group_deltas": {group: _deltas(_comparisons(found)) for group, found in groups.items()},
        "group_comparisons": {group: _comparisons(found) for group, found in groups.items()},
        "evaluation": config.model_dump(mode="json", exclude={"block_mb"}),
        "config_hash": config_hash,
        "data_fingerprint": data_fingerprint,
    }
    return dict(rounded(metrics))


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


def _members(size_group: Mapping[str, SizeGroup]) -> dict[str, list[str]]:
    """Domains of each group that has any."""
    groups: dict[str, list[str]] = {"large": [], "small": [], "all": list(size_group)}
    for name, group in size_group.items():
        groups[group].append(name)
    return {group: names for group, names in groups.items() if names}


def _estimate(name: str, values: UserValues, config: EvaluationConfig) -> Estimates:
    return estimate(values, config.bootstrap_resamples, named_seed(config.seed, name))


def _n_users(values: UserValues) -> int:
    return len(next(iter(values.values())))


def _models(estimates: Estimates, ranks: SeedRanks | None = None) -> dict[str, Any]:
    models: dict[str, Any] = {}
    for (model, metric), found in estimates.figures.items():
        figures = models.setdefault(model, {"ci95": {}})
        figures[metric] = found.mean
        figures["ci95"][metric] = _bounds(found)
    for model, seeds in (ranks or {}).items():
        if len(seeds) > 1:
            models[model]["seeds"] = [float(ndcg(one, 10).mean()) for one in seeds]
    return models


def _comparisons(estimates: Estimates) -> dict[str, dict[str, Any]]:
    """The joint model minus each other, by the other."""
    return {
        other: _difference(found, estimates.figures[other, COMPARED_BY].mean)
        | ({"effect_size": estimates.effect_sizes[other]} if estimates.effect_sizes else {})
        for other, found in estimates.joint_minus.items()
    }


def _difference(found: Estimate, base: float) -> dict[str, Any]:
    relative = found.mean / base if base else None
    return {
        COMPARED_BY: found.mean,
        "ci95": _bounds(found),
        "relative": relative,
        "p": found.p_value,
    }


def _adjusted(domains: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same comparisons with `p_holm`: one question a domain, for each other model."""
    found: dict[str, dict[str, Any]] = {name: {} for name in domains}
    for other in {other for comparisons in domains.values() for other in comparisons}:
        asked = {name: each[other]["p"] for name, each in domains.items() if other in each}
        for name, p_holm in holm(asked).items():
            found[name][other] = domains[name][other] | {"p_holm": p_holm}
    return found


def _deltas(comparisons: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The question of transfer: joint against trained alone, where both were run."""
    if SINGLE not in comparisons:
        return {}
    delta = comparisons[SINGLE]
    marks = {"against": SINGLE, "negative_transfer": delta["ci95"][1] < 0}
    return {JOINT: {**delta, **marks}}


def _marked(comparisons: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The same for a bucket: with its interval alone, since so many questions are not tested."""
    left_out = ("relative", "p", "effect_size")
    return {
        model: {name: value for name, value in delta.items() if name not in left_out}
        for model, delta in _deltas(comparisons).items()
    }


def _buckets(
    name: str, values: UserValues, groups: Buckets, config: EvaluationConfig
) -> dict[str, Any]:
    """NDCG@10 of the users of each bucket; a bucket of too few users has no figures."""
    found: dict[str, Any] = {}
    for group, members in groups.items():
        for bucket, chosen in members.items():
            figures: dict[str, Any] = {"users": int(chosen.sum()), "models": {}, "deltas": {}}
            if chosen.sum() >= FEWEST_USERS:
                one = _estimate(f"{name}/{group}/{bucket}", of_users(values, chosen), config)
                figures |= {"models": _models(one), "deltas": _marked(_comparisons(one))}
            found.setdefault(group, {})[bucket] = figures
    return found


def _bounds(estimate: Estimate) -> list[float]:
    interval = estimate.interval
    return [interval.low, interval.high]


def rounded(value: Any) -> Any:
    """The same structure with floats of 6 significant digits (and no negative zero)."""
    if isinstance(value, Mapping):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    return float(f"{value:.6g}") + 0.0 if isinstance(value, float) else value
