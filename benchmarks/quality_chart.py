"""A race as one SVG: NDCG against seconds of training, and against parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.svg import svg_document

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "time_to_quality", "font.size": 9}
# The first of a kind, then others of other settings.
_REFERENCES = {
    "sasrec_bce": ("#8a4b08", "#c98f4e", "#e3c39c"),
    "sasrec_ss": ("#b3261e", "#e2746c", "#f0b5b0"),
}
_HYDRAS = "viridis"


def chart(records: Sequence[Mapping[str, Any]], title: str, clock: str = "seconds") -> str:
    """Draw the curves and the frontier.

    Args:
        records: of cells that were validated.
        title: above the two panels.
        clock: seconds or cpu_seconds.

    Returns:
        An SVG document; equal records give equal bytes.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    colours = _colours(records)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 5.2), layout="constrained")
        figure.suptitle(title, fontsize=10)
        curves, frontier = figure.subplots(1, 2, sharey=True)
        for record in records:
            _draw(curves, frontier, record, colours[record["name"]], clock)
        curves.set_xscale("log")
        unit = "seconds" if clock == "seconds" else "CPU seconds"
        curves.set_xlabel(f"{unit} of training, without validation")
        curves.set_ylabel("validation NDCG@10")
        frontier.set_xscale("log")
        frontier.set_xlabel("parameters beside the item embedding")
        frontier.set_title("the best of each", loc="left", fontsize=9)
        for axis in (curves, frontier):
            axis.grid(color="#dddddd", linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
        frontier.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        frontier.xaxis.set_major_formatter(EngFormatter())
        frontier.xaxis.set_minor_formatter(NullFormatter())
        frontier.tick_params(axis="x", labelsize=8)
        # Below, once for both panels: names are long, and models lie close together.
        figure.legend(loc="outside lower center", ncols=2, fontsize=7.5, frameon=False)
        return svg_document(figure)


def _draw(curves: Any, frontier: Any, record: Mapping[str, Any], colour: str, clock: str) -> None:
    points = [point for point in record["curve"] if point["ndcg@10"] is not None]
    dash = "--" if record["kind"] in _REFERENCES else "-"
    seconds, quality = [p[clock] for p in points], [p["ndcg@10"] for p in points]
    curves.plot(seconds, quality, dash, color=colour, linewidth=1.5, label=record["name"])
    size = record["parameters"]["non_embedding"]
    frontier.plot(size, record["best"]["ndcg@10"], "o", color=colour)


def _colours(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The references' own colours; Hydras from dark to light as they grow."""
    import matplotlib
    from matplotlib.colors import to_hex

    others = [r["name"] for r in records if r["kind"] not in _REFERENCES]
    scale = matplotlib.colormaps[_HYDRAS]
    colours = {n: to_hex(scale(0.9 * i / max(len(others), 1))) for i, n in enumerate(others)}
    for kind, shades in _REFERENCES.items():
        names = [r["name"] for r in records if r["kind"] == kind]
        colours |= {name: shades[min(i, len(shades) - 1)] for i, name in enumerate(names)}
    return colours
