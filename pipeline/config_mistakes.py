"""What pydantic found wrong with a config, said in one clear sentence a mistake."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError


def describe_mistakes(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """A sentence for each mistake that pydantic found: field, what was got, what was expected."""
    mistakes = [dict(mistake) for mistake in error.errors()]
    # A tuple whose only element is wrong is also called too short: that says nothing new.
    causes = [m for m in mistakes if m["type"] != "too_short" or len(mistakes) == 1]
    return "\n".join(_sentence(mistake, model, where) for mistake in causes)


def _sentence(mistake: Mapping[str, Any], model: type[BaseModel], where: str) -> str:
    location: tuple[str | int, ...] = mistake["loc"]
    owner, path = _model_at(model, location[:-1])
    if mistake["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        wrong, known = str(location[-1]), list(owner.model_fields) if owner else []
        return f"{where}: {_dotted(path)}{wrong}: unknown field; {did_you_mean(wrong, known)}"
    field = _dotted(location).rstrip(".") or "the config"
    if mistake["type"] == "missing":
        return f"{where}: {field}: this field is required; add it"
    message = str(mistake["msg"]).removeprefix("Value error, ")
    if mistake["type"] == "value_error":
        return f"{where}: {field}: {message}"
    got = repr(mistake["input"])
    return f"{where}: {field}: {message}, got {got if len(got) < 80 else got[:77] + '...'}"


def did_you_mean(wrong: str, known: Sequence[str], else_see: str | None = None) -> str:
    """The known name nearest to a wrong one, as a question; else all that are known.

    Args:
        wrong: the name that was got.
        known: the names that would have done.
        else_see: said instead of all of them, where they are too many to read in a message.
    """
    close = difflib.get_close_matches(wrong, known, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return else_see or f"known are {', '.join(sorted(known))}"


def _dotted(location: Sequence[str | int]) -> str:
    return "".join(f"{part}." for part in location)


def _model_at(
    model: type[BaseModel], location: Sequence[str | int]
) -> tuple[type[BaseModel] | None, list[str | int]]:
    """The model that a pydantic error location lies in, and the location without union tags."""
    current: Any = model
    path: list[str | int] = []
    for part in location:
        members = models_in(current)
        tagged = [m for m in members if part in _tags(m)]
        if len(members) > 1 and tagged:
            current = tagged[0]
            continue
        path.append(part)
        if typing.get_origin(current) is dict:  # `part` is a key of the user's own
            current = typing.get_args(current)[1]
            continue
        if isinstance(part, int) or not members:
            continue
        fields = members[0].model_fields
        current = fields[part].annotation if part in fields else None
    members = models_in(current)
    return (members[0] if members else None), path


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation names, in order: of a union, a tuple, an Optional."""
    parts = typing.get_args(annotation)
    if parts or not isinstance(annotation, type):
        return [model for part in parts for model in models_in(part)]
    return [annotation] if issubclass(annotation, BaseModel) else []


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("format")
    return typing.get_args(field.annotation) if field else ()
