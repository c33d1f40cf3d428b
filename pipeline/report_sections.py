"""What each section of the report shows: plain values, with lengths as shares of a bar's width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.model_names import DESCRIPTIONS, JOINT, in_order, label
from pipeline.results import COMPARED_BY, share_of_oracle

# CSS variable of each model, and the dash of its curves: blues are Hydra, greys are baselines.
MODEL_STYLE = {
    "popularity": ("popularity", "solid"),
    "popularity_7d": ("popularity", "dashed"),
    "item_knn": ("knn", "solid"),
    "sasrec_bce": ("sasrec", "dashed"),
    "sasrec": ("sasrec", "solid"),
    "hydra_ids": ("single", "dotted"),
    "hydra_frozen": ("single", "dashed"),
    "hydra_single": ("single", "solid"),
    "hydra_joint": ("joint", "solid"),
    "oracle": ("oracle", "solid"),
}
_OTHER_STYLE = ("other", "solid")


@dataclass(frozen=True)
class Span:
    """A value with its interval, and where they lie, in percent of the plot's width."""

    value: float
    low: float
    high: float
    at: float
    low_at: float
    high_at: float


@dataclass(frozen=True)
class Bar:
    """One model's NDCG@10 in one panel."""

    label: str
    colour: str
    span: Span
    is_best: bool
    of_oracle: float | None


@dataclass(frozen=True)
class Panel:
    """The results of a domain, or of a group of domains."""

    title: str
    note: str
    bars: Sequence[Bar]
    metrics: Sequence[str]
    table: Sequence[tuple[str, Sequence[float]]]


@dataclass(frozen=True)
class Transfer:
    """Joint minus single in one domain, or over a group."""

    title: str
    note: str
    span: Span
    verdict: str  # "gain", "loss" or "level"
    is_group: bool


@dataclass(frozen=True)
class Stage:
    """One stage's share of the longest stage."""

    name: str
    status: str
    seconds: float
    width: float
    made_in_seconds: float | None
    peak_mb: float | None


def style(model: str) -> tuple[str, str]:
    """The model's CSS variable (without dashes) and the dash of its curves."""
    return MODEL_STYLE.get(model, _OTHER_STYLE)


def domain_order(metrics: Mapping[str, Any]) -> list[str]:
    """Large domains first, then by the number of interactions."""
    domains = metrics["domains"]

    def place(name: str) -> tuple[bool, int, str]:
        return domains[name]["size_group"] != "large", -domains[name]["interactions"], name

    return sorted(domains, key=place)


def group_panels(metrics: Mapping[str, Any]) -> list[Panel]:
    """Macro averages of the groups; none for a single domain, which is its own average."""
    if len(metrics["domains"]) == 1:
        return []
    members = {"all": domain_order(metrics)}
    for name in members["all"]:
        members.setdefault(metrics["domains"][name]["size_group"], []).append(name)
    titles = {"all": "All domains", "large": "Large domains", "small": "Small domains"}
    return [
        _panel(titles[group], _mean_of(metrics, members[group]), metrics["groups"][group], metrics)
        for group in titles
        if group in metrics["groups"] and metrics["groups"][group]
    ]


def domain_panels(metrics: Mapping[str, Any]) -> list[Panel]:
    """Every domain's results."""
    panels = []
    for name in domain_order(metrics):
        domain = metrics["domains"][name]
        note = f"{domain['size_group']}, n = {domain['evaluated_users']:,} users"
        panels.append(_panel(name, note, domain["models"], metrics))
    return panels


def transfers(metrics: Mapping[str, Any]) -> list[Transfer]:
    """Joint against single, by domain and then by group, on one scale around 0."""
    rows: list[tuple[str, str, Mapping[str, Any], bool]] = []
    for name in domain_order(metrics):
        domain = metrics["domains"][name]
        if domain["deltas"]:
            note = f"n = {domain['evaluated_users']:,}"
            rows.append((name, note, domain["deltas"][JOINT], False))
    if len(rows) > 1:
        for group in ("large", "small", "all"):
            delta = metrics["group_deltas"].get(group, {}).get(JOINT)
            size = _group_size(metrics, group)
            if delta and size > 1:
                rows.append((f"{group} domains", f"mean of {size}", delta, True))
    limit = max((abs(bound) for *_, delta, _ in rows for bound in delta["ci95"]), default=0.0)
    return [_transfer(*row, limit=1.04 * limit or 1.0) for row in rows]


def stages(run: Mapping[str, Any]) -> list[Stage]:
    """Where time went, in the order in which the stages ran."""
    longest = max((stage["seconds"] for stage in run["stages"]), default=0.0) or 1.0
    return [
        Stage(
            stage["name"],
            stage["status"],
            stage["seconds"],
            100 * stage["seconds"] / longest,
            stage.get("made_in_seconds"),
            stage.get("peak_mb"),
        )
        for stage in run["stages"]
    ]


def model_rows(metrics: Mapping[str, Any], run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was compared: each model's label, colour, description and parameters."""
    present = in_order({m for domain in metrics["domains"].values() for m in domain["models"]})
    return [
        {
            "label": label(model),
            "colour": style(model)[0],
            "dash": style(model)[1],
            "description": DESCRIPTIONS.get(model, ""),
            **{key: _parameters(run, model, key) for key in ("total", "non_embedding")},
        }
        for model in present
    ]


def _parameters(run: Mapping[str, Any], model: str, key: str) -> int | None:
    found = (run.get("parameters") or {}).get(model) or {}
    return found.get(key)


def _panel(title: str, note: str, models: Mapping[str, Any], metrics: Mapping[str, Any]) -> Panel:
    order = in_order(models)
    best = max(models[m][COMPARED_BY] for m in order if m != "oracle" or len(order) == 1)
    top = max(models[m]["ci95"][COMPARED_BY][1] for m in order) or 1.0
    names = metric_names(metrics["evaluation"]["ks"])
    return Panel(
        title=title,
        note=note,
        bars=[
            Bar(
                label=label(model),
                colour=style(model)[0],
                span=_span(models[model][COMPARED_BY], models[model]["ci95"][COMPARED_BY], 0, top),
                is_best=model != "oracle" and models[model][COMPARED_BY] == best,
                of_oracle=None if model == "oracle" else share_of_oracle(models, model),
            )
            for model in order
        ],
        metrics=names,
        table=[(label(m), [models[m][name] for name in names]) for m in order],
    )


def metric_names(ks: Iterable[int]) -> list[str]:
    """Names of all metrics, in the order in which tables list them.

    >>> metric_names([10])
    ['ndcg@10', 'hr@10', 'mrr@10', 'mrr']
    """
    return [*(f"{name}@{k}" for k in ks for name in ("ndcg", "hr", "mrr")), "mrr"]


def _transfer(
    title: str, note: str, delta: Mapping[str, Any], is_group: bool, *, limit: float
) -> Transfer:
    low, _ = delta["ci95"]
    verdict = "loss" if delta["negative_transfer"] else "gain" if low > 0 else "level"
    span = _span(delta[COMPARED_BY], delta["ci95"], -limit, limit)
    return Transfer(title, note, span, verdict, is_group)


def _span(value: float, bounds: Sequence[float], least: float, most: float) -> Span:
    low, high = bounds

    def place(x: float) -> float:
        return round(100 * (x - least) / (most - least), 3)

    return Span(value, low, high, place(value), place(low), place(high))


def _mean_of(metrics: Mapping[str, Any], names: Sequence[str]) -> str:
    users = sum(metrics["domains"][name]["evaluated_users"] for name in names)
    domains = "domain" if len(names) == 1 else "domains"
    return f"mean of {len(names)} {domains}, n = {users:,} users"


def _group_size(metrics: Mapping[str, Any], group: str) -> int:
    sizes = [domain["size_group"] for domain in metrics["domains"].values()]
    return len(sizes) if group == "all" else sizes.count(group)
