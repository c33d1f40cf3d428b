"""The fields of a config as a flat list: for its help and for overrides on the command line."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_KINDS = {int: "INT", float: "NUMBER", str: "TEXT", bool: "BOOL", Path: "PATH", dict: "MAPPING"}


@dataclass(frozen=True)
class ConfigField:
    """One field that holds a value (and not more fields).

    Attributes:
        path: dotted, with the names of the YAML file: user_model.training.lr.
        annotation: its Python type.
        default: its value where none is given, as JSON; None where one must be given.
        description: what it is, with its unit.
    """

    path: str
    annotation: Any
    default: str | None
    description: str

    @property
    def option(self) -> str:
        """As it is written on the command line: --user-model.training.lr."""
        return f"--{self.path.replace('_', '-')}"

    @property
    def kind(self) -> str:
        """What is expected, for people: INT or null, one of strict, refit, time."""
        return " or ".join(dict.fromkeys(_kinds(self.annotation)))

    @property
    def members(self) -> tuple[Any, ...]:
        """The types that the value may have; NoneType where null is allowed."""
        return _members(self.annotation)

    @property
    def many(self) -> bool:
        """Whether the value is a list."""
        return any(typing.get_origin(member) is tuple for member in self.members)


@dataclass(frozen=True)
class Section:
    """A group of fields, such as `user_model.training`, and what it is about."""

    path: str
    description: str
    fields: tuple[ConfigField, ...]


def sections(
    model: type[BaseModel], value: BaseModel | None = None, path: str = "", description: str = ""
) -> Iterator[Section]:
    """The sections of a config: its own fields first, then those of the models in it.

    Args:
        model: the config's class.
        value: what defaults are taken from; None: the class's own.
        path: dotted place of the config.
        description: what it is about.
    """
    inner: list[Section] = []
    own: list[ConfigField] = []
    for name, info in model.model_fields.items():
        place = f"{path}.{name}" if path else name
        default = getattr(value, name) if value is not None else _default(info)
        nested = [m for m in _members(info.annotation) if _is_model(m)]
        about = info.description or ""
        if len(nested) == 1:
            inside = default if isinstance(default, nested[0]) else None
            if type(None) in _members(info.annotation):  # the whole section can be left out
                state = "null" if default is None else "as below"
                own.append(ConfigField(place, type(None), state, about))
            inner += sections(nested[0], inside, place, about)
        else:
            own.append(ConfigField(place, info.annotation, _as_json(default, info), about))
    yield Section(path, description, tuple(own))
    yield from inner


def _default(info: FieldInfo) -> Any:
    return None if info.is_required() else info.get_default(call_default_factory=True)


def _as_json(value: Any, info: FieldInfo) -> str | None:
    if value is None and info.is_required():
        return None
    if isinstance(value, Path):
        value = str(value)
    if any(isinstance(part, BaseModel) for part in (value if isinstance(value, tuple) else ())):
        return None
    if isinstance(value, tuple):
        return " ".join(str(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value)


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for part in typing.get_args(annotation) for m in _members(part))
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    return (annotation,)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _kinds(annotation: Any) -> Iterator[str]:
    for member in _members(annotation):
        origin = typing.get_origin(member)
        if member is type(None):
            yield "null"
        elif origin is Literal:
            yield ", ".join(str(choice) for choice in typing.get_args(member))
        elif origin is tuple:
            parts = [part for part in typing.get_args(member) if part is not Ellipsis]
            several = "..." if Ellipsis in typing.get_args(member) else ""
            yield " ".join([*(" or ".join(_kinds(part)) for part in parts), several]).strip()
        else:
            yield _KINDS.get(origin or member, "MAPPING")
