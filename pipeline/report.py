"""The report: one HTML page that stands alone, without network and without JavaScript.

Numbers come from the run's JSON files and texts are strangers' data, so the template escapes
everything. Bars and intervals are SVG in percent of their cell, which keeps text readable on a
phone; curves, which need axes, are drawn by matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline import report_sections as sections
from pipeline.model_names import ORACLE
from pipeline.report_curves import item_llm_chart, training_charts
from pipeline.report_findings import finding, key_figures, signed

_FOLDER = Path(__file__).parent
_ABSENT = "\u2013"


def render(
    metrics: Mapping[str, Any],
    run: Mapping[str, Any],
    curves: Mapping[str, Any],
    data: Mapping[str, Any],
) -> str:
    """Render the report.

    Args:
        metrics: the dict of metrics.json, by `results.assemble`.
        run: of run.json, the run card.
        curves: of curves.json: the item LLM's and the user models' training records.
        data: of data.json: what became of each domain's rows.

    Returns:
        A whole HTML document.
    """
    users = sum(domain["evaluated_users"] for domain in metrics["domains"].values())
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            css=Markup((_FOLDER / "report.css").read_text(encoding="utf-8")),
            metrics=metrics,
            run=run,
            data=data,
            n_users=users,
            finding=finding(metrics),
            key_figures=key_figures(metrics),
            domains=sections.domain_order(metrics),
            shared_users=[pair for pair in (data.get("shared_users") or {}).items() if pair[1]],
            models=sections.model_rows(metrics, run),
            has_oracle=any(ORACLE in domain["models"] for domain in metrics["domains"].values()),
            group_panels=sections.group_panels(metrics),
            domain_panels=sections.domain_panels(metrics),
            transfers=sections.transfers(metrics),
            item_llm=curves.get("item_llm"),
            item_llm_chart=item_llm_chart(curves.get("item_llm")),
            training_charts=training_charts(
                curves.get("user_models") or {}, sections.domain_order(metrics)
            ),
            stages=sections.stages(run),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: _ABSENT if value is None else f"{value:,}",
        "figure": lambda value: _ABSENT if value is None else f"{value:.4f}",
        "decimals": lambda value, n: _ABSENT if value is None else f"{value:,.{n}f}",
        "share": lambda value: _ABSENT if value is None else f"{value:.0%}",
        "signed": signed,
        "duration": duration,
        "moment": moment,
        "thousands": thousands,
    }
    return environment


def duration(seconds: float | None) -> str:
    """Seconds as people say them.

    >>> duration(0.04), duration(9.26), duration(492), duration(8000)
    ('0.0 s', '9.3 s', '8 min 12 s', '2 h 13 min')
    """
    if seconds is None:
        return _ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(started: str) -> str:
    """An ISO 8601 time as people read it; any other text stands for itself.

    >>> moment("2026-03-14T09:26:53Z"), moment("yesterday")
    ('14 March 2026, 09:26 UTC', 'yesterday')
    """
    try:
        time = datetime.fromisoformat(started)
    except ValueError:
        return started
    return f"{time.day} {time:%B %Y, %H:%M} {time.tzname() or ''}".rstrip()


def thousands(value: int | None) -> str:
    """A number of parameters, short.

    >>> thousands(812), thousands(64_512), thousands(134_515_008), thousands(None)
    ('812', '64.5 k', '134.5 M', '–')
    """
    if value is None:
        return _ABSENT
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value}"
