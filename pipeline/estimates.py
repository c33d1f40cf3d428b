"""What one domain's models reach, and by how much the joint one differs: means with bootstraps.

Several training seeds of one model are averaged user by user before anything else, so that the
intervals stay those over users; how far the seeds lie apart is told beside them (results.py).

Legend: n users, M columns (metrics of models, and differences), R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics import Float64s, Ranks, per_user
from pipeline.model_names import JOINT, ORACLE, in_order
from pipeline.statistics import Estimate, effect_size, estimate_means, macro_average

COMPARED_BY = "ndcg@10"

# One domain's models, each with one Ranks a training seed, of the same users in the same order.
SeedRanks = Mapping[str, Sequence[Ranks]]
# (model, metric) -> float64 [n]: a figure a user, averaged over the seeds.
UserValues = Mapping[tuple[str, str], Float64s]


@dataclass(frozen=True)
class Estimates:
    """Of some users of a domain, or averaged over domains.

    Attributes:
        figures: by (model, metric).
        joint_minus: the joint model minus another, NDCG@10, by the other model.
        effect_sizes: of the same differences; empty for averages over domains.
    """

    figures: Mapping[tuple[str, str], Estimate]
    joint_minus: Mapping[str, Estimate]
    effect_sizes: Mapping[str, float] = field(default_factory=dict)


def user_values(
    domain: str, models: SeedRanks, ks: Sequence[int]
) -> dict[tuple[str, str], Float64s]:
    """Every metric of every model for each user, models in the order of the tables.

    Raises:
        ValueError: models ranked on other numbers of users, or on none.
    """
    counts = {model: sorted({len(ranks) for ranks in seeds}) for model, seeds in models.items()}
    sizes = {size for found in counts.values() for size in found}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"results of {domain}: the numbers of users ranked are {counts or 'absent'}; every "
            "model must rank the same users, 1 or more"
        )
    values: dict[tuple[str, str], Float64s] = {}
    for model in in_order(models):
        by_seed = [per_user(ranks, ks) for ranks in models[model]]
        for metric in by_seed[0]:
            values[model, metric] = np.mean([found[metric] for found in by_seed], axis=0)
    return values


def estimate(values: UserValues, resamples: int, seed: Sequence[int]) -> Estimates:
    """Every figure, and the joint model's differences, from one bootstrap over the users.

    Args:
        values: of one domain's users.
        resamples: R.
        seed: entropy of the draws.
    """
    models = in_order({model for model, _ in values})
    differences = {
        other: values[JOINT, COMPARED_BY] - values[other, COMPARED_BY]
        for other in models
        if JOINT in models and other not in (JOINT, ORACLE)
    }
    table_nM = np.stack([*values.values(), *differences.values()], axis=1)
    estimates = estimate_means(table_nM, resamples, seed)
    return Estimates(
        dict(zip(values, estimates[: len(values)], strict=True)),
        dict(zip(differences, estimates[len(values) :], strict=True)),
        {other: effect_size(found) for other, found in differences.items()},
    )


def of_users(values: UserValues, chosen: NDArray[np.bool_]) -> dict[tuple[str, str], Float64s]:
    """NDCG@10 of some of the users: bool [n]; what differences are taken of."""
    return {key: found[chosen] for key, found in values.items() if key[1] == COMPARED_BY}


def average(domains: Sequence[Estimates]) -> Estimates:
    """Average over the domains, each counting the same, what all of them have."""
    figures = [domain.figures for domain in domains]
    joint_minus = [domain.joint_minus for domain in domains]
    return Estimates(
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
