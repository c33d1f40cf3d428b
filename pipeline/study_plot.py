"""A study as one SVG: a line for each cell, a dot for each seed and for their mean."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.study_results import CellResult
from pipeline.svg import svg_document

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "study", "font.size": 9}
_ROW_INCHES = 0.28


def study_plot(results: Sequence[CellResult], metric: str) -> str:
    """Draw a metric of all cells, the first one's mean as a line through all of them.

    Args:
        results: of cells that have seeds, in the study's order, which is that from the top.
        metric: name of a test metric.

    Returns:
        An SVG document; equal results give equal bytes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 1.1 + _ROW_INCHES * len(results)), layout="constrained")
        axis = figure.subplots()
        axis.axvline(results[0].mean(metric), color="#888888", linewidth=0.8, zorder=0)
        for row, result in enumerate(results):
            values = [seed.test[metric] for seed in result.seeds]
            axis.scatter(values, [row] * len(values), s=12, color="#7fb2b2")
            axis.scatter([result.mean(metric)], [row], s=34, color="#00565b")
        # Labels are the study's own words; a dollar sign in one is no formula.
        names = [result.about.replace("$", r"\$") for result in results]
        axis.set_yticks(range(len(results)), names)
        axis.invert_yaxis()
        axis.set_xlabel(f"test {metric}")
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right", "left"]].set_visible(False)
        return svg_document(figure)
