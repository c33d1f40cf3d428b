"""The page of a study of runs: a table for each model, cells by domains, and a plot over x."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.model_names import label
from pipeline.results_page import markdown_table, put_section
from pipeline.run_study import RunCellResult, RunFigures, RunStudyConfig
from pipeline.svg import svg_document
from pipeline.whole_files import write_text

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "runs", "font.size": 9}
_COLOURS = ("#00565b", "#b3261e", "#8a4b08", "#4a3f8f", "#5b5b5b")
_COLUMNS = 3  # panels beside each other


def write_run_study_page(
    docs: Path, study: RunStudyConfig, results: Sequence[RunCellResult], command: str
) -> Path:
    """Write DOCS/studies/NAME.md, and its plot where the study has one; returns the page."""
    page = docs / "studies" / f"{study.name}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    parts = [f"## {study.title}", f"    {command}", _note(study)]
    for model in study.shown:
        if table := run_study_table(study, results, model):
            parts += [f"### {label(model)}", table]
    if study.x_title is not None:
        write_text(page.with_suffix(".svg"), run_study_plot(study, results))
        parts.append(f"![NDCG@10 over {study.x_title}]({study.name}.svg)")
    put_section(page, f"study {study.name}", "\n\n".join(parts))
    return page


def _note(study: RunStudyConfig) -> str:
    whom = "all test users" if study.bucket is None else f"the test users of {study.bucket}"
    return (
        f"NDCG@10 on {whom}, all items of the domain as candidates, mean over the seeds (± their "
        "standard deviation); in brackets the difference to the first line. Validation: NDCG@10 "
        "on the validation targets, by which settings are chosen; no test figure chose any."
    )


def run_study_table(study: RunStudyConfig, results: Sequence[RunCellResult], model: str) -> str:
    """A Markdown table, a line a cell; "" where no cell has the model."""
    rows = [result for result in results if _domains(study, result, model)]
    if not rows:
        return ""
    domains = list(dict.fromkeys(name for row in rows for name in row.seeds[0].users))
    head = ["cell", *domains, "mean", "validation", "seeds", "config"]
    lines = []
    if study.bucket is not None:
        lines.append(_random_line(rows[0].seeds[0], domains))
    first = rows[0]
    for row in rows:
        cells = [_cell(study, row, first, model, name) for name in domains]
        mean = _cell(study, row, first, model, None)
        told = [_validation(row, model), " ".join(str(f.seed) for f in row.seeds)]
        lines.append([row.about, *cells, mean, *told, f"`{row.config_hash[:8]}`"])
    return markdown_table(head, lines)


def random_ndcg(items: int) -> float:
    """NDCG@10 that a random order of so many items has in expectation.

    >>> round(random_ndcg(10_000), 6)
    0.000454
    """
    return sum(1 / math.log2(1 + rank) for rank in range(1, 1 + min(10, items))) / items


def _random_line(figures: RunFigures, domains: Sequence[str]) -> list[str]:
    """Few users in a bucket have figures that look small: what would chance reach?"""
    found = [random_ndcg(figures.items[name]) for name in domains]
    cells = [f"{one:.4f}" for one in (*found, statistics.fmean(found))]
    return ["in random order", *cells, "-", "", ""]


def value(study: RunStudyConfig, figures: RunFigures, model: str, domain: str) -> float | None:
    """NDCG@10 of the users that the study shows; None where the model or the users are absent."""
    if study.bucket is None:
        return figures.test[domain].get(model)
    return figures.buckets[domain].get(study.bucket, {}).get(model)


def _domains(study: RunStudyConfig, result: RunCellResult, model: str) -> list[str]:
    """The domains in which every seed of the cell has the figure."""
    return [
        name
        for name in result.seeds[0].users
        if all(value(study, figures, model, name) is not None for figures in result.seeds)
    ]


def _values(
    study: RunStudyConfig, result: RunCellResult, model: str, domain: str | None
) -> list[float]:
    """A figure a seed: of a domain, or for None the mean over domains; [] where it is absent."""
    names = _domains(study, result, model)
    if domain is not None and domain not in names:
        return []
    wanted = names if domain is None else [domain]
    return [
        statistics.fmean(
            found for name in wanted if (found := value(study, one, model, name)) is not None
        )
        for one in result.seeds
    ]


def _cell(
    study: RunStudyConfig, row: RunCellResult, first: RunCellResult, model: str, domain: str | None
) -> str:
    values, base = (_values(study, result, model, domain) for result in (row, first))
    if not values:
        return "-"
    mean = statistics.fmean(values)
    text = f"{mean:.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")
    if row is first or not base:
        return text
    return f"{text} ({mean - statistics.fmean(base):+.4f})"


def _validation(row: RunCellResult, model: str) -> str:
    found = [figures.validation[model] for figures in row.seeds if model in figures.validation]
    return f"{statistics.fmean(found):.4f}" if found else "-"


def run_study_plot(study: RunStudyConfig, results: Sequence[RunCellResult]) -> str:
    """Draw each domain's NDCG@10 over x, a colour a line, a dash a model; an SVG document."""
    import matplotlib
    from matplotlib.figure import Figure

    drawn = [result for result in results if result.x is not None]
    domains = list(dict.fromkeys(name for result in drawn for name in result.seeds[0].users))
    columns = max(1, min(_COLUMNS, len(domains)))
    rows = max(1, -(-len(domains) // columns))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.2 * columns, 0.6 + 2.5 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, domain in zip(axes, domains, strict=False):
            _panel(axis, study, drawn, domain)
        for axis in axes[len(domains) :]:
            axis.set_visible(False)
        handles, labels = axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        return svg_document(figure)


def _panel(axis: Any, study: RunStudyConfig, drawn: Sequence[RunCellResult], domain: str) -> None:
    named = list(dict.fromkeys(result.line for result in drawn if result.line is not None))
    lines: list[str | None] = [*named] or [None]
    for line, colour in zip(lines, _COLOURS, strict=False):
        of_line = [result for result in drawn if result.line in (line, None)]
        for model, dash in zip(study.shown, ("-", "--", ":", "-."), strict=False):
            points = sorted(
                (result.x, statistics.fmean(values))
                for result in of_line
                if result.x is not None and (values := _values(study, result, model, domain))
            )
            if points:
                name = label(model) if line is None else f"{line}, {label(model)}"
                axis.plot(*zip(*points, strict=True), f"o{dash}", color=colour, ms=3, label=name)
    axis.set_title(domain, fontsize=9)
    axis.set_xlabel(study.x_title)
    axis.set_ylim(bottom=0)
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
