"""In which order the report shows domains, how it colours models, and whose examples it shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.estimates import COMPARED_BY
from pipeline.model_names import JOINT, ORACLE, in_order, label

# CSS variable of each model, and the dash of its curves: blues are Hydra, greys are baselines.
_MODEL_STYLE = {
    "popularity": ("popularity", "solid"),
    "popularity_7d": ("popularity", "dashed"),
    "item_knn": ("knn", "solid"),
    "sasrec_bce": ("sasrec", "dashed"),
    "sasrec": ("sasrec", "solid"),
    "mamba2rec": ("mamba", "solid"),
    "hstu": ("hstu", "solid"),
    "hstu_time": ("hstu", "dashed"),
    "hydra_ids": ("single", "dotted"),
    "hydra_frozen": ("single", "dashed"),
    "hydra_single": ("single", "solid"),
    "hydra_joint": ("joint", "solid"),
    "oracle": ("oracle", "solid"),
}
_OTHER_STYLE = ("other", "solid")


def style(model: str) -> tuple[str, str]:
    """The model's CSS variable (without dashes) and the dash of its curves."""
    return _MODEL_STYLE.get(model, _OTHER_STYLE)


@dataclass(frozen=True)
class LegendEntry:
    """What tells a model's curve from the others: its name, colour and dash."""

    label: str
    colour: str
    dash: str


def legend_entry(model: str, remark: str = "") -> LegendEntry:
    """The model's entry in a chart's legend; the remark follows its name."""
    return LegendEntry(label(model) + remark, *style(model))


def domain_order(metrics: Mapping[str, Any]) -> list[str]:
    """Large domains first, then by the number of interactions."""
    large = {n for n, domain in metrics["domains"].items() if domain["size_group"] == "large"}
    return sorted(by_size(metrics), key=lambda name: name not in large)


def by_size(metrics: Mapping[str, Any]) -> list[str]:
    """Domains by the number of interactions, the largest first."""
    domains = metrics["domains"]
    return sorted(domains, key=lambda name: (-domains[name]["interactions"], name))


def shown_model(metrics: Mapping[str, Any], trained: Collection[str]) -> str:
    """The model whose recommendations are shown: the joint one, or the best of the trained ones.

    A run that trains nothing shows the best of its baselines.
    """
    domains = metrics["domains"].values()
    present = in_order({model for domain in domains for model in domain["models"]} - {ORACLE})
    candidates = [model for model in present if model in trained] or present or [ORACLE]

    def mean(model: str) -> float:
        found = [d["models"][model][COMPARED_BY] for d in domains if model in d["models"]]
        return float(sum(found) / len(metrics["domains"]))

    return JOINT if JOINT in candidates else max(candidates, key=mean)
