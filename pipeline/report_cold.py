"""The report's cold curves: how well an item is found that few people, or none, trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipeline.estimates import COMPARED_BY
from pipeline.model_names import ORACLE, in_order, label
from pipeline.report_buckets import in_reading_order
from pipeline.report_charts import Line, Panel, curves
from pipeline.report_order import LegendEntry, domain_order, legend_entry, style

GROUP = "taken"


@dataclass(frozen=True)
class ColdCurve:
    """One domain's chart: NDCG@10 over the training events of what was taken next."""

    domain: str
    users: int
    legend: list[LegendEntry]
    chart: Markup


def cold_curves(metrics: Mapping[str, Any]) -> list[ColdCurve]:
    """A chart for each domain that has two buckets of enough users.

    Args:
        metrics: of metrics.json; of an older version, without these buckets, none are drawn.
    """
    drawn = []
    for number, domain in enumerate(domain_order(metrics)):
        buckets = _with_figures(metrics["domains"][domain].get("buckets", {}).get(GROUP, {}))
        if len(buckets) > 1:
            drawn.append(_curve(f"cold-{number}", domain, buckets))
    return drawn


def _with_figures(buckets: Mapping[str, Any]) -> dict[str, Any]:
    return {name: buckets[name] for name in in_reading_order(buckets) if buckets[name]["models"]}


def _curve(name: str, domain: str, buckets: Mapping[str, Any]) -> ColdCurve:
    models = in_order({model for found in buckets.values() for model in found["models"]} - {ORACLE})
    lines = {model: _line(model, buckets) for model in models}
    rarest, *_, commonest = buckets
    description = f"NDCG@10 in {domain} by training events of the target, {rarest} to {commonest}: "
    description += "; ".join(
        f"{label(model)} {line.y[0]:.3f} to {line.y[-1]:.3f}" for model, line in lines.items()
    )
    chart = curves(
        name,
        [Panel("NDCG@10", list(lines.values()))],
        x_label="training events of the target",
        x_names=list(buckets),
        description=description,
    )
    legend = [legend_entry(model) for model in models]
    return ColdCurve(domain, sum(found["users"] for found in buckets.values()), legend, chart)


def _line(model: str, buckets: Mapping[str, Any]) -> Line:
    colour, dash = style(model)
    points = [
        (place, found["models"][model][COMPARED_BY])
        for place, found in enumerate(buckets.values())
        if model in found["models"]
    ]
    return Line(colour, [x for x, _ in points], [y for _, y in points], dash)
