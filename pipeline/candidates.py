"""Settings of a model that are chosen on validation: every combination of the values to try.

A section of the config (user_model, sasrec ...) names fields of its own, dotted, with the values
to try: `candidates: {dropout: [0.3, 0.5], training.lr: [1e-3, 3e-3]}` are four candidates.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.config_fields import sections
from pipeline.config_mistakes import describe_mistakes, did_you_mean
from pipeline.config_overrides import put_field
from pipeline.whole_files import content_hash

Candidates = Mapping[str, tuple[Any, ...]]
Settings = dict[str, Any]  # dotted field -> value
S = TypeVar("S", bound=BaseModel)

_LONGEST_NAME = 24
# They change what is compared, or nothing that is learned.
_SETTLED = (
    *("candidates", "joint", "interleave", "backend"),
    *("validation_users", "items.text", "training.checkpoint_steps"),
)


def with_fields(section: S, fields: Mapping[str, Any], where: str) -> S:
    """A copy of a section of the config with some of its fields set, and checked as a whole.

    Args:
        section: is not changed.
        fields: values by dotted name, such as training.lr.
        where: what the message of a mistake begins with.

    Raises:
        ValueError: a field is unknown or a value does not fit; a sentence each.
    """
    content = section.model_dump()
    for path, value in fields.items():
        content = put_field(content, path.split("."), value)
    try:
        return type(section).model_validate(content)
    except ValidationError as error:
        raise ValueError(describe_mistakes(error, type(section), where)) from error


def variants(section: S, candidates: Candidates) -> list[tuple[Settings, S]]:
    """Each combination of the candidates' values, and the section with them; one without any.

    Args:
        section: the model's part of the config.
        candidates: values to try, by dotted field; the first field changes slowest.
    """
    found = []
    for values in itertools.product(*candidates.values()):
        fields = dict(zip(candidates, values, strict=True))
        variant = with_fields(section, {**fields, "candidates": {}}, "candidates")
        found.append(({path: _value_at(variant, path) for path in candidates}, variant))
    return found


def check_candidates(section: BaseModel, candidates: Candidates) -> None:
    """Refuse candidates that cannot be tried.

    Raises:
        ValueError: a field is unknown or settled, a value is absent, given twice or does not fit.
    """
    own = type(section)
    known = [field.path for part in sections(own) for field in part.fields]
    open_to_choice = [path for path in known if path not in _SETTLED]
    for path, values in candidates.items():
        if path in _SETTLED:
            raise ValueError(f"candidates.{path}: is one for all candidates; set it outside them")
        if path not in open_to_choice:
            hint = did_you_mean(path, open_to_choice)
            raise ValueError(f"candidates.{path}: unknown field; {hint}")
        if not values:
            raise ValueError(f"candidates.{path}: got no value, expected those to try, as a list")
        tried = [settings[path] for settings, _ in variants(section, {path: values})]
        if twice := [value for value in tried if tried.count(value) > 1]:
            raise ValueError(f"candidates.{path}: {twice[0]} is given twice; values must differ")
    variants(section, candidates)  # values that fit alone may not fit together


def setting_text(settings: Mapping[str, Any]) -> str:
    """Settings for readers, in one line.

    >>> setting_text({"dropout": 0.3, "training.lr": 1e-3})
    'dropout=0.3, training.lr=0.001'
    """
    return ", ".join(f"{path}={json.dumps(value)}" for path, value in settings.items())


def setting_name(settings: Mapping[str, Any]) -> str:
    """Settings as part of a stage's name, and so of a folder's: no blanks, never long.

    >>> setting_name({"dropout": 0.3})
    'dropout=0.3'
    >>> setting_name({"dropout": 0.3, "training.lr": 1e-3})
    'dropout=0.3,tra-29fc3fd0'
    """
    text = re.sub(r"[^\w.=,+-]", "", setting_text(settings))
    if len(text) <= _LONGEST_NAME:
        return text
    return f"{text[: _LONGEST_NAME - 9]}-{content_hash(settings)[:8]}"


def _value_at(section: BaseModel, path: str) -> Any:
    """The value of a field as the config has read it: 1 and 1.0 are one dropout."""
    found: Any = section
    for name in path.split("."):
        found = getattr(found, name)
    return found
