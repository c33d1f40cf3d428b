"""The table of results as text to be copied: Markdown for an issue, LaTeX for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.estimates import COMPARED_BY
from pipeline.model_names import JOINT, ORACLE, in_order, label
from pipeline.report_order import domain_order
from pipeline.report_results import GROUP_TITLES, Metrics, members

_MARKDOWN = str.maketrans({"|": r"\|", "<": "&lt;", "*": r"\*", "_": r"\_"})
_LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
)


@dataclass(frozen=True)
class Copies:
    """The same table twice."""

    markdown: str
    latex: str


@dataclass(frozen=True)
class _Row:
    name: str
    users: int
    figures: Mapping[str, float]
    delta: Mapping[str, Any] | None


def copies(metrics: Metrics) -> Copies:
    """NDCG@10 of each model in each domain and group, the best of a row bold."""
    domains = metrics["domains"]
    models = in_order({model for domain in domains.values() for model in domain["models"]})
    rows = [
        _Row(name, domains[name]["evaluated_users"], _figures(domains[name]["models"]),
             domains[name]["deltas"].get(JOINT))
        for name in domain_order(metrics)
    ]  # fmt: skip
    for group in ("large", "small", "all"):
        names = members(metrics, group)
        if len(names) > 1:
            users = sum(domains[name]["evaluated_users"] for name in names)
            found, delta = metrics["groups"][group], metrics["group_deltas"][group].get(JOINT)
            rows.append(_Row(GROUP_TITLES[group], users, _figures(found), delta))
    return Copies(_markdown(models, rows), _latex(models, rows))


def _figures(models: Mapping[str, Any]) -> dict[str, float]:
    return {model: found[COMPARED_BY] for model, found in models.items()}


def _markdown(models: Sequence[str], rows: Sequence[_Row]) -> str:
    has_delta = any(row.delta for row in rows)
    head = ["NDCG@10", "n", *(label(m).translate(_MARKDOWN) for m in models)]
    head += ["joint - single [95%]"] if has_delta else []
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    for row in rows:
        cells = _cells(row, models, "**{}**", f"{row.users:,}")
        delta = [_delta(row, "{:+.4f} [{:+.4f}, {:+.4f}]")] if has_delta else []
        lines.append([row.name.translate(_MARKDOWN), *cells, *delta])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _latex(models: Sequence[str], rows: Sequence[_Row]) -> str:
    has_delta = any(row.delta for row in rows)
    head = ["NDCG@10", "$n$", *(label(m).translate(_LATEX) for m in models)]
    head += ["joint $-$ single [95\\%]"] if has_delta else []
    body = []
    for row in rows:
        cells = _cells(row, models, r"\textbf{{{}}}", f"{row.users:,}".replace(",", "{,}"))
        delta = [_delta(row, "${:+.4f}$ [${:+.4f}$, ${:+.4f}$]")] if has_delta else []
        body.append([row.name.translate(_LATEX), *cells, *delta])
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule"]
    lines += [" & ".join(head) + r" \\", r"\midrule"]
    lines += [" & ".join(cells) + r" \\" for cells in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _cells(row: _Row, models: Sequence[str], bold: str, users: str) -> list[str]:
    """The number of users and each model's figure; the oracle is nobody's rival."""
    best = max((v for m, v in row.figures.items() if m != ORACLE), default=None)
    cells = [users]
    for model in models:
        value = row.figures.get(model)
        text = "-" if value is None else f"{value:.4f}"
        cells.append(bold.format(text) if value == best and model != ORACLE else text)
    return cells


def _delta(row: _Row, form: str) -> str:
    if row.delta is None:
        return "-"
    return form.format(row.delta[COMPARED_BY], *row.delta["ci95"])
