"""The report's training curves, from the records in curves.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.model_names import in_order, label
from pipeline.report_charts import Line, Panel, curves
from pipeline.report_order import legend_entry, style


def item_llm_chart(item_llm: Mapping[str, Any] | None) -> Markup | None:
    """The item LLM's training loss; None where it was not tuned.

    Args:
        item_llm: of curves.json.
    """
    steps = [step for step in (item_llm or {}).get("steps", []) if step["loss"] is not None]
    if not steps:
        return None
    losses = [step["loss"] for step in steps]
    description = (
        f"Training loss of the item LLM over {len(steps)} steps: "
        f"from {losses[0]:.3f} to {losses[-1]:.3f}"
    )
    line = Line("joint", [step["step"] for step in steps], losses)
    panel = Panel(f"Training loss, n = {len(steps):,} steps", [line])
    return curves("llm", [panel], x_label="step", description=description, width=380)


def training_charts(
    user_models: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], domains: Sequence[str]
) -> list[dict[str, Any]]:
    """One chart for what was trained on all domains, then one for each domain.

    Args:
        user_models: of curves.json: model -> domain or "all" -> epochs.
        domains: in the order of the charts.

    Returns:
        For each chart its title, the chart, and its legend.
    """
    charts = []
    for number, scope in enumerate(["all", *domains]):
        trained = {
            model: user_models[model][scope]
            for model in in_order(user_models)
            if user_models[model].get(scope)
        }
        if trained:
            title = "All domains together" if scope == "all" else scope
            chart = _training_chart(f"curves-{number}", title, trained)
            legend = [
                legend_entry(model, f", n = {len(epochs)} epochs")
                for model, epochs in trained.items()
            ]
            charts.append({"title": title, "chart": chart, "legend": legend})
    return charts


def _training_chart(
    name: str, title: str, trained: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Markup:
    panels = [
        Panel("Training loss", [_line(m, epochs, "loss") for m, epochs in trained.items()]),
        Panel("Validation NDCG@10", [_line(m, e, "ndcg@10") for m, e in trained.items()]),
    ]
    ends = [
        f"{label(model)}: loss {epochs[0]['loss']:.3f} to {epochs[-1]['loss']:.3f} "
        f"in {len(epochs)} epochs"
        for model, epochs in trained.items()
    ]
    return curves(name, panels, x_label="epoch", description=f"{title}. {'; '.join(ends)}")


def _line(model: str, epochs: Sequence[Mapping[str, Any]], key: str) -> Line:
    points = [(epoch["epoch"], epoch[key]) for epoch in epochs if epoch.get(key) is not None]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    best = ys.index(max(ys)) if key == "ndcg@10" and ys else None
    colour, dash = style(model)
    return Line(colour, xs, ys, dash, best)
