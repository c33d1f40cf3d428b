"""What the figures say, in words: the report's first sentences, computed and never rounded up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.estimates import COMPARED_BY
from pipeline.model_names import JOINT, ORACLE, in_order, label
from pipeline.report_differences import difference
from pipeline.report_formats import Figure, listed, pointer
from pipeline.report_results import of_oracle

Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class KeyFigure:
    """One number of the headline: what it is, the number, what stands below it."""

    title: str
    value: Figure
    note: Sequence[str | Figure]


def finding(metrics: Metrics) -> str:
    """The main finding in one sentence.

    Does training on all domains help? Where that was not asked: which model is best?
    """
    if any(domain["deltas"] for domain in metrics["domains"].values()):
        return _transfer_sentence(metrics["domains"])
    return _ranking_sentence(metrics)


def key_figures(metrics: Metrics) -> list[KeyFigure]:
    """The headline's numbers: the best of what was run, and what it is measured by."""
    models = metrics["groups"]["all"]
    hero = _hero(models)
    if hero is None:
        return []
    where = ("groups", "all")
    figures = [_own_figure(models, hero, where)]
    if delta := metrics["group_deltas"]["all"].get(JOINT):
        found = difference(delta, ("group_deltas", "all", JOINT))
        note: list[str | Figure] = ["NDCG@10, 95% interval ", found.low, " to ", found.high]
        figures.append(KeyFigure("Against each domain alone", found.value, note))
    ratio = _against_popularity(models, hero)
    if ratio is not None:
        base = Figure(models["popularity"][COMPARED_BY], pointer(*where, "popularity", COMPARED_BY))
        value = Figure(ratio, pointer(*where, hero, COMPARED_BY), "times", over=base.pointer)
        figures.append(KeyFigure("Against popularity", value, ["Popularity ", base]))
    if share := of_oracle(models, hero, where):
        best = Figure(models[ORACLE][COMPARED_BY], pointer(*where, ORACLE, COMPARED_BY))
        figures.append(KeyFigure("Of the oracle", share, ["the best possible is ", best]))
    return figures


def _own_figure(models: Mapping[str, Any], hero: str, where: Sequence[str]) -> KeyFigure:
    at = (*where, hero)
    low, high = (
        Figure(bound, pointer(*at, "ci95", COMPARED_BY, place))
        for place, bound in enumerate(models[hero]["ci95"][COMPARED_BY])
    )
    value = Figure(models[hero][COMPARED_BY], pointer(*at, COMPARED_BY))
    return KeyFigure(f"NDCG@10, {label(hero)}", value, ["95% interval ", low, " to ", high])


def _transfer_sentence(domains: Mapping[str, Any]) -> str:
    deltas = {name: d["deltas"][JOINT] for name, d in domains.items() if d["deltas"]}
    gains = [name for name, delta in deltas.items() if delta["ci95"][0] > 0]
    losses = [name for name, delta in deltas.items() if delta["negative_transfer"]]
    n, level = len(deltas), len(deltas) - len(gains) - len(losses)
    start = "One Hydra trained on all domains together, against one trained on each alone:"
    if n == 1:
        [name] = deltas
        verdict = "no clear difference" if level else "better" if gains else "worse"
        return f"{start} {verdict} in {name}, the only domain compared."
    parts = []
    if gains:
        parts.append(f"better in {len(gains)} of {n} domains")
    if losses:
        parts.append(f"worse in {len(losses)} of {n} ({listed(losses)})")
    if level:
        parts.append(f"no clear difference in {level} of {n}" + ("" if parts else " domains"))
    return f"{start} {listed(parts)}."


def _ranking_sentence(metrics: Metrics) -> str:
    models = {m: v for m, v in metrics["groups"]["all"].items() if m != ORACLE}
    n = len(metrics["domains"])
    where = "in the one domain" if n == 1 else f"on average over {n} domains"
    if not models:
        return "No model was run in every domain, so there is no average to compare."
    best = max(in_order(models), key=lambda model: models[model][COMPARED_BY])
    value = f"NDCG@10 {models[best][COMPARED_BY]:.4f} {where}"
    if len(models) == 1:
        return f"{label(best)} was run alone: {value}; there is nothing to compare it with."
    ratio = _against_popularity(models, best)
    versus = "" if ratio is None else f", {ratio:.1f} times popularity"
    return f"{label(best)} ranks best of {len(models)} models: {value}{versus}."


def _hero(models: Mapping[str, Any]) -> str | None:
    """The model that the headline speaks of: the joint one, or else the best."""
    real = [model for model in in_order(models) if model != ORACLE]
    if JOINT in real:
        return JOINT
    return max(real, key=lambda model: models[model][COMPARED_BY], default=None)


def _against_popularity(models: Mapping[str, Any], model: str) -> float | None:
    popularity = models.get("popularity", {}).get(COMPARED_BY)
    if not popularity or model == "popularity":
        return None
    return float(models[model][COMPARED_BY] / popularity)
