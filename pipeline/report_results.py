"""The report's results: every model in every domain and group, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.estimates import COMPARED_BY
from pipeline.model_names import ORACLE, in_order, label
from pipeline.report_formats import Figure, pointer
from pipeline.report_order import domain_order, style

Metrics = Mapping[str, Any]
GROUP_TITLES = {"all": "All domains", "large": "Large domains", "small": "Small domains"}


@dataclass(frozen=True)
class Span:
    """A figure with its interval, and where they lie, in percent of the plot's width."""

    value: Figure
    low: Figure
    high: Figure
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
    of_oracle: Figure | None


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds of its 95% interval."""

    value: Figure
    low: Figure
    high: Figure


@dataclass(frozen=True)
class Panel:
    """The results of a domain, or of a group of domains."""

    title: str
    note: str
    users: Figure | None
    bars: Sequence[Bar]
    metrics: Sequence[str]
    table: Sequence[tuple[str, Sequence[Interval]]]
    seeds: Sequence[Sequence[Figure]]  # NDCG@10 of each training seed, a model a row; none of one


def group_panels(metrics: Metrics) -> list[Panel]:
    """Macro averages of the groups; none for a single domain, which is its own average."""
    if len(metrics["domains"]) == 1:
        return []
    return [
        _panel(title, _mean_of(metrics, group), ("groups", group), metrics)
        for group, title in GROUP_TITLES.items()
        if metrics["groups"].get(group)
    ]


def domain_panels(metrics: Metrics) -> list[Panel]:
    """Every domain's results."""
    return [
        _panel(
            name,
            metrics["domains"][name]["size_group"],
            ("domains", name, "models"),
            metrics,
            users=_count(metrics, "domains", name, "evaluated_users"),
        )
        for name in domain_order(metrics)
    ]


def metric_names(ks: Iterable[int]) -> list[str]:
    """Names of all metrics, in the order in which tables list them.

    >>> metric_names([10])
    ['ndcg@10', 'hr@10', 'mrr@10', 'mrr']
    """
    return [*(f"{name}@{k}" for k in ks for name in ("ndcg", "hr", "mrr")), "mrr"]


def _panel(
    title: str,
    note: str,
    where: tuple[str, ...],
    metrics: Metrics,
    users: Figure | None = None,
) -> Panel:
    models = at(metrics, where)
    order = in_order(models)
    best = max(models[m][COMPARED_BY] for m in order if m != ORACLE or len(order) == 1)
    top = max(models[m]["ci95"][COMPARED_BY][1] for m in order) or 1.0
    names = metric_names(metrics["evaluation"]["ks"])
    return Panel(
        title=title,
        note=note,
        users=users,
        bars=[
            Bar(
                label=label(model),
                colour=style(model)[0],
                span=span(interval(metrics, (*where, model)), 0, top),
                is_best=model != ORACLE and models[model][COMPARED_BY] == best,
                of_oracle=of_oracle(models, model, where),
            )
            for model in order
        ],
        metrics=names,
        table=[(label(m), [interval(metrics, (*where, m), name) for name in names]) for m in order],
        seeds=[_seeds(models[model], (*where, model)) for model in order],
    )


def _seeds(figures: Mapping[str, Any], where: Sequence[str]) -> list[Figure]:
    found = enumerate(figures.get("seeds", ()))
    return [Figure(value, pointer(*where, "seeds", place)) for place, value in found]


def of_oracle(models: Mapping[str, Any], model: str, where: Sequence[str]) -> Figure | None:
    """The model's NDCG@10 over the oracle's; None of the oracle, without one, or where it is 0."""
    ceiling = models.get(ORACLE, {}).get(COMPARED_BY)
    if not ceiling or model == ORACLE:
        return None
    return Figure(
        models[model][COMPARED_BY] / ceiling,
        pointer(*where, model, COMPARED_BY),
        "share",
        over=pointer(*where, ORACLE, COMPARED_BY),
    )


def interval(metrics: Metrics, where: tuple[str, ...], metric: str = COMPARED_BY) -> Interval:
    """A metric of the model that stands at `where`, with its bounds."""
    found = at(metrics, where)
    low, high = found["ci95"][metric]
    return Interval(
        Figure(found[metric], pointer(*where, metric)),
        Figure(low, pointer(*where, "ci95", metric, 0)),
        Figure(high, pointer(*where, "ci95", metric, 1)),
    )


def span(found: Interval, least: float, most: float) -> Span:
    """A figure and its interval on a plot from `least` to `most`."""

    def place(figure: Figure) -> float:
        return round(100 * (figure.value - least) / (most - least), 3)

    places = (place(found.value), place(found.low), place(found.high))
    return Span(found.value, found.low, found.high, *places)


def _count(metrics: Metrics, *where: str) -> Figure:
    return Figure(at(metrics, where), pointer(*where), "count")


def at(metrics: Metrics, where: Sequence[str]) -> Any:
    """What stands at a path of keys."""
    found: Any = metrics
    for key in where:
        found = found[key]
    return found


def members(metrics: Metrics, group: str) -> list[str]:
    """The domains of "all", "large" or "small"."""
    domains = metrics["domains"]
    return [n for n in domains if group in ("all", domains[n]["size_group"])]


def _mean_of(metrics: Metrics, group: str) -> str:
    names = members(metrics, group)
    users = sum(metrics["domains"][name]["evaluated_users"] for name in names)
    return f"mean of {len(names)} domain{'s' * (len(names) > 1)}, n = {users:,} users"
