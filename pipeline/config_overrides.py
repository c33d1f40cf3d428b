"""Options of the command line put over the fields of a config: --user-model.layers 4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from pipeline.config_fields import ConfigField, sections
from pipeline.config_mistakes import did_you_mean
from pipeline.strict_yaml import load_value


def with_overrides(
    content: Mapping[str, Any], options: Sequence[str], model: type[BaseModel]
) -> dict[str, Any]:
    """A copy of a config's content with options put over it.

    Values are read as YAML reads them (1e-4 is a number, null is nothing), but a field of text
    takes them as they are. A list takes all values up to the next option.

    Args:
        content: the file's mapping; it is not changed.
        options: --a.b VALUE ... or --a.b=VALUE, with - or _ in names.
        model: the config's class, which knows the fields.

    Raises:
        ValueError: an option that names no field, or has no value or too many.
    """
    fields = {field.path: field for section in sections(model) for field in section.fields}
    fields.pop("domains", None)
    merged = dict(content)
    for option, values in _split(options):
        path = option.removeprefix("--").replace("-", "_")
        if path not in fields:
            known = [field.option for field in fields.values()]
            hint = did_you_mean(option, known, else_see="--help lists the known ones")
            raise ValueError(f"{option}: unknown option; {hint}")
        merged = put_field(merged, path.split("."), _value(option, values, fields[path]))
    return merged


def _split(options: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each option with the values that follow it."""
    place = 0
    while place < len(options):
        option, equals, value = options[place].partition("=")
        if not option.startswith("--"):
            raise ValueError(f"{options[place]!r} follows no option; options begin with --")
        place += 1
        values = [value] if equals else []
        while place < len(options) and not options[place].startswith("--"):
            values.append(options[place])
            place += 1
        yield option, values


def _value(option: str, values: Sequence[str], field: ConfigField) -> Any:
    if field.many and list(values) not in (["null"], ["None"]):
        if not values:
            raise ValueError(f"{option}: got no value, expected {field.kind}")
        return [_scalar(value, text=True) for value in values]
    if len(values) != 1:
        got = " ".join(values) or "no value"
        raise ValueError(f"{option}: got {got}, expected one value ({field.kind})")
    return _scalar(values[0], text=str in field.members)


def _scalar(value: str, *, text: bool) -> Any:
    if value in ("null", "None"):
        return None
    if text:
        return value
    try:
        return load_value(value)
    except yaml.YAMLError:
        return value  # and the config says what it expected instead


def put_field(content: Any, path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy with one field set: parts of a YAML file may be shared by an anchor."""
    copy = dict(content) if isinstance(content, Mapping) else {}
    copy[path[0]] = put_field(copy.get(path[0]), path[1:], value) if len(path) > 1 else value
    return copy
