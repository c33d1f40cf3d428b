"""A profile's file of results, and its page: a table and two panels over the length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.profile_study import Measured, ProfileConfig
from pipeline.results_page import markdown_table, put_section
from pipeline.run_card import hardware, versions
from pipeline.svg import svg_document
from pipeline.whole_files import read_json, write_json, write_text

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "profile", "font.size": 9}
_COLOURS = ("#00565b", "#b3261e", "#8a4b08", "#4a3f8f", "#5b5b5b")


def read_measured(path: Path, config: ProfileConfig) -> list[Measured]:
    """What a file of results holds; nothing if there is none, or it is of another config."""
    if not path.is_file():
        return []
    content = read_json(path)
    if content["config_hash"] != config.config_hash():
        return []
    fields = Measured.model_fields
    return [
        Measured.model_validate({name: row[name] for name in fields}) for row in content["measured"]
    ]


def write_measured(
    path: Path, config: ProfileConfig, measured: Sequence[Measured], command: str
) -> None:
    """Write the file, with the machine beside the figures: times mean nothing without it."""
    rows = [
        row.model_dump(mode="json")
        | {"microseconds": row.microseconds, "bytes_per_event": row.bytes_per_event}
        for row in measured
    ]
    content = {
        "study": config.name, "command": command, "config_hash": config.config_hash(),
        "hardware": hardware(), "versions": versions(), "measured": rows,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def write_profile_page(
    docs: Path, config: ProfileConfig, measured: Sequence[Measured], command: str
) -> None:
    """Write DOCS/studies/NAME.md and its plot."""
    page = docs / "studies" / f"{config.name}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page.with_suffix(".svg"), profile_plot(config, measured))
    text = (
        f"## {config.title}\n\n    {command}\n\n{profile_table(config, measured)}\n"
        f"Forward and backward of the sequence model alone, {config.tokens:,} events a step in "
        f"sequences of one length, median of {config.repetitions}, {config.threads} thread(s), "
        f"{hardware()['machine']}; each figure from a process of its own. Memory is what a step "
        "adds at its highest. A ratio is the model's to that of the first.\n\n"
        f"![time and memory over length]({config.name}.svg)\n"
    )
    put_section(page, f"study {config.name}", text)


def profile_table(config: ProfileConfig, measured: Sequence[Measured]) -> str:
    """A Markdown table, a line for each length."""
    found = {(row.model, row.length): row for row in measured}
    heads = ["length"]
    for model in config.models:
        heads += [f"{model}, us an event", f"{model}, bytes an event"]
    heads += [f"{model} / {config.models[0]}, time" for model in config.models[1:]]
    lines = []
    for length in config.lengths:
        rows = [found.get((model, length)) for model in config.models]
        cells = [f"{length:,}"]
        for row in rows:
            cells += ["", ""] if row is None else _figures(row)
        for row in rows[1:]:
            cells.append(_ratio(row, rows[0]))
        lines.append(cells)
    return markdown_table(heads, lines) + "\n"


def _figures(row: Measured) -> list[str]:
    spread = (max(row.seconds) - min(row.seconds)) / min(row.seconds)
    return [f"{row.microseconds:.2f} (spread {spread:.0%})", f"{row.bytes_per_event:,.0f}"]


def _ratio(row: Measured | None, first: Measured | None) -> str:
    if row is None or first is None:
        return ""
    return f"{row.microseconds / first.microseconds:.2f}"


def profile_plot(config: ProfileConfig, measured: Sequence[Measured]) -> str:
    """Draw time and memory of an event over the length, one line a model; an SVG document."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = (("microseconds", "us an event"), ("bytes_per_event", "peak bytes an event"))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axis, (field, label) in zip(figure.subplots(1, 2), panels, strict=True):
            for model, colour in zip(config.models, _COLOURS, strict=False):
                _line(axis, [row for row in measured if row.model == model], field, colour)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel("events of a sequence")
            axis.set_ylabel(label)
            axis.grid(color="#dddddd", linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3,
            frameon=False,
        )  # fmt: skip
        return svg_document(figure)


def _line(axis: Any, rows: Sequence[Measured], field: str, colour: str) -> None:
    if rows:
        y = [getattr(row, field) for row in rows]
        axis.plot([row.length for row in rows], y, "o-", color=colour, label=rows[0].model)
