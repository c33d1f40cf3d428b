"""The report: one HTML page that stands alone, without network and without JavaScript.

Numbers come from the run's JSON files and texts are strangers' data, so the template escapes
everything. Bars and intervals are SVG in percent of their cell, which keeps text readable on a
phone; curves, which need axes, are drawn by matplotlib.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline import (
    report_buckets,
    report_choices,
    report_cold,
    report_copy,
    report_data,
    report_differences,
    report_examples,
    report_formats,
    report_results,
    report_stages,
)
from pipeline.model_names import ORACLE
from pipeline.report_curves import item_llm_chart, training_charts
from pipeline.report_files import RunFiles
from pipeline.report_findings import finding, key_figures
from pipeline.report_order import domain_order
from pipeline.results import FEWEST_USERS

_FOLDER = Path(__file__).parent


def render(files: RunFiles) -> str:
    """Render the report of one run: a whole HTML document."""
    metrics, run, curves, data = files.metrics, files.run, files.curves, files.data
    return page(
        "report.html.j2",
        metrics=metrics,
        run=run,
        data=data,
        n_users=sum(domain["evaluated_users"] for domain in metrics["domains"].values()),
        finding=finding(metrics),
        key_figures=key_figures(metrics),
        domains=report_data.domain_rows(metrics, data),
        counts=report_data.counts_table(metrics, data),
        refused=report_data.refused(metrics, data),
        shared_users=sorted(pair for pair in (data.get("shared_users") or {}).items() if pair[1]),
        models=report_stages.model_rows(metrics, run),
        seeds=report_formats.listed([str(seed) for seed in run.get("seeds", ())]),
        has_oracle=any(ORACLE in domain["models"] for domain in metrics["domains"].values()),
        group_panels=report_results.group_panels(metrics),
        domain_panels=report_results.domain_panels(metrics),
        transfers=report_differences.transfers(metrics),
        comparisons=report_differences.comparisons(metrics),
        buckets=report_buckets.bucket_tables(metrics),
        cold_curves=report_cold.cold_curves(metrics),
        fewest_users=FEWEST_USERS,
        copies=report_copy.copies(metrics),
        has_examples=files.examples is not None,
        users=report_examples.example_users(metrics, files.examples),
        neighbours=report_examples.item_neighbours(files.examples),
        item_llm=curves.get("item_llm"),
        item_llm_chart=item_llm_chart(curves.get("item_llm")),
        training_charts=training_charts(curves.get("user_models") or {}, domain_order(metrics)),
        choices=report_choices.choice_rows(run.get("choices") or {}, domain_order(metrics)),
        stages=report_stages.stages(run),
    )


def page(template: str, **values: Any) -> str:
    """Fill a template of this folder; the style sheet is part of the page."""
    css = Markup((_FOLDER / "report.css").read_text(encoding="utf-8"))
    return _environment().get_template(template).render(css=css, **values)


def _environment() -> Environment:
    absent = report_formats.ABSENT
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: absent if value is None else f"{value:,}",
        "decimals": lambda value, n: absent if value is None else f"{value:,.{n}f}",
        "duration": report_formats.duration,
        "megabytes": report_formats.megabytes,
        "moment": report_formats.moment,
        "thousands": report_formats.thousands,
    }
    return environment
