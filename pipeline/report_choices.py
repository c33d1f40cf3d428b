"""Settings that were chosen on validation, for the page and for the terminal.

`choices` is the run card's: model -> domain or "all" -> candidates with settings and figures.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.candidates import setting_text
from pipeline.model_names import in_order, label
from pipeline.report_order import style

Choices = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
_WIDTH = 80
_TOGETHER = "all"


@dataclass(frozen=True)
class Candidate:
    """What was tried: its settings, its validation NDCG@10, whether it was kept."""

    settings: str
    validation: float
    is_chosen: bool


@dataclass(frozen=True)
class Choice:
    """One trained model, where it was trained, and its candidates."""

    label: str
    colour: str
    scope: str
    candidates: Sequence[Candidate]


def choice_rows(choices: Choices, domains: Iterable[str]) -> list[Choice]:
    """The choices of a run, model by model.

    Args:
        choices: of the run card.
        domains: in the order in which the page shows them.
    """
    return [
        Choice(
            label=label(model),
            colour=style(model)[0],
            scope="all domains" if scope == _TOGETHER else scope,
            candidates=[_candidate(one) for one in choices[model][scope]],
        )
        for model in in_order(choices)
        for scope in (_TOGETHER, *domains)
        if scope in choices[model]
    ]


def choice_lines(choices: Choices) -> list[str]:
    """What was chosen, in lines of the terminal; none where there was no choice."""
    if not choices:
        return []
    lines = ["Chosen on validation (each candidate's figure is in the report):"]
    for model in in_order(choices):
        domains: dict[str, list[str]] = {}
        for scope, candidates in choices[model].items():
            chosen = next(one for one in candidates if one["chosen"])
            domains.setdefault(setting_text(chosen["settings"]), []).append(scope)
        told = "; ".join(f"{text} ({', '.join(names)})" for text, names in domains.items())
        lines += textwrap.wrap(
            f"{label(model)}: {told}", _WIDTH, initial_indent="  ", subsequent_indent="    "
        )
    return lines


def _candidate(one: Mapping[str, Any]) -> Candidate:
    return Candidate(setting_text(one["settings"]), one["validation_ndcg@10"], one["chosen"])
