"""The table that a run ends with: domains x models in the terminal, 80 columns wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.estimates import COMPARED_BY
from pipeline.model_names import JOINT, ORACLE, in_order, label
from pipeline.results import share_of_oracle

_WIDTH = 80
_FIGURE = 7  # "0.1234" and a blank
_DELTA = 10  # "+0.0123 ▼" and a blank
_SHORTEST_NAME = 10
# The first to give way where a terminal is too narrow for all models.
_LEAST_NEEDED = (
    *("sasrec_bce", "popularity_7d", "mamba2rec", "hstu", "hstu_time"),
    *("hydra_ids", "item_knn", "hydra_frozen"),
)
_NOTES = {
    "joint": "joint - single: joint training minus training alone, same users.",
    "loss": "▼ negative transfer (95% interval below 0)  ▲ gain (interval above 0)",
    "oracle": "of oracle: the joint model's share of the simulator's own NDCG@10.",
}


def results_table(metrics: Mapping[str, Any], width: int = _WIDTH) -> Group:
    """NDCG@10 of each model in each domain, large and small apart, the best of each row bold.

    Args:
        metrics: the dict of metrics.json.
        width: columns of the terminal; models that do not fit are named below the table.

    Returns:
        A rich renderable: the table and its legend.
    """
    present = in_order({m for d in metrics["domains"].values() for m in d["models"]})
    shown, left_out = _fitting([model for model in present if model != ORACLE], width)
    has_delta = any(domain["deltas"] for domain in metrics["domains"].values())
    columns = _Columns(shown, has_delta=has_delta, has_oracle=ORACLE in present)
    table = Table(box=SIMPLE_HEAD, padding=0)
    columns.add_to(table, name_width=width - columns.width - 3)
    for group in ("large", "small"):
        _add_group(table, metrics, group, columns)
    if len(metrics["domains"]) > 1:
        table.add_section()
        table.add_row(*columns.row("all", metrics["groups"]["all"], metrics["group_deltas"]["all"]))
    return Group(table, *_legend(columns, left_out))


class _Columns:
    """Which columns the table has, and a row's cells."""

    def __init__(self, models: Sequence[str], *, has_delta: bool, has_oracle: bool) -> None:
        self.models = models
        self.has_delta = has_delta
        self.has_oracle = has_oracle

    @property
    def width(self) -> int:
        return len(self.models) * _FIGURE + self.has_delta * _DELTA + self.has_oracle * _FIGURE

    def add_to(self, table: Table, name_width: int) -> None:
        table.add_column("NDCG@10", no_wrap=True, overflow="ellipsis", max_width=name_width)
        for model in self.models:
            title = label(model).replace("Popularity", "Popul.")
            table.add_column(Text(title), justify="right", width=_FIGURE - 1)
        if self.has_delta:
            table.add_column("joint - single", justify="right", width=_DELTA - 1)
        if self.has_oracle:
            table.add_column("of oracle", justify="right", width=_FIGURE - 1)

    def row(
        self, name: str, models: Mapping[str, Any], deltas: Mapping[str, Any]
    ) -> list[Text | str]:
        figures = {m: models[m][COMPARED_BY] for m in self.models if m in models}
        best = max(figures.values(), default=0.0)
        cells: list[Text | str] = [Text(name)]
        for model in self.models:
            value = figures.get(model)
            text = "-" if value is None else f"{value:.4f}"
            cells.append(Text(text, style="bold" if value == best else ""))
        if self.has_delta:
            cells.append(_delta(deltas.get(JOINT)))
        if self.has_oracle:
            share = share_of_oracle(models, JOINT)
            cells.append("-" if share is None else f"{share:.0%}")
        return cells


def _add_group(table: Table, metrics: Mapping[str, Any], group: str, columns: _Columns) -> None:
    names = [n for n, domain in metrics["domains"].items() if domain["size_group"] == group]
    if not names:
        return
    table.add_section()
    for name in sorted(names, key=lambda n: (-metrics["domains"][n]["interactions"], n)):
        domain = metrics["domains"][name]
        table.add_row(*columns.row(name, domain["models"], domain["deltas"]))
    if len(names) > 1:
        mean = columns.row(group, metrics["groups"][group], metrics["group_deltas"][group])
        table.add_row(*mean, style="dim")


def _delta(delta: Mapping[str, Any] | None) -> Text:
    if delta is None:
        return Text("-")
    if delta["negative_transfer"]:
        return Text(f"{delta[COMPARED_BY]:+.4f} ▼", style="red")
    if delta["ci95"][0] > 0:
        return Text(f"{delta[COMPARED_BY]:+.4f} ▲", style="green")
    return Text(f"{delta[COMPARED_BY]:+.4f}  ")


def _fitting(models: Sequence[str], width: int) -> tuple[list[str], list[str]]:
    """The models that fit beside a name, the difference and the oracle; and the others."""
    shown = list(models)
    room = (width - _SHORTEST_NAME - 3 - _DELTA - _FIGURE) // _FIGURE
    for model in [*_LEAST_NEEDED, *(m for m in models if m not in (*_LEAST_NEEDED, JOINT))]:
        if len(shown) > max(1, room) and model in shown:
            shown.remove(model)
    return shown, [model for model in models if model not in shown]


def _legend(columns: _Columns, left_out: Sequence[str]) -> list[Text]:
    notes = ["Best of a row in bold; large, small and all are means over domains."]
    if columns.has_delta:
        notes += [_NOTES["joint"], _NOTES["loss"]]
    if columns.has_oracle:
        notes.append(_NOTES["oracle"])
    if left_out:
        notes.append(f"In the report, for want of room here: {', '.join(map(label, left_out))}.")
    return [Text(note, style="dim") for note in notes]
