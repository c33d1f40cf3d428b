"""In which fields the configs of runs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "absent"
# What a run is called and where its outputs stand: they differ for no reason of interest.
_IGNORED = ("name", "store")


@dataclass(frozen=True)
class FieldDifference:
    """A field and its value in each run, as text; `ABSENT` where a run has no such field."""

    field: str
    values: Sequence[str]


def differing_fields(configs: Sequence[Mapping[str, Any]]) -> list[FieldDifference]:
    """The fields in which the configs are not all equal, in the first config's order.

    A field is written as its path in the YAML file; domains go by their names:

    >>> [difference] = differing_fields([{"a": {"b": 1}, "name": "x"}, {"a": {"b": 2}}])
    >>> difference.field, list(difference.values)
    ('a.b', ['1', '2'])
    """
    flat = [dict(_flat(config)) for config in configs]
    fields = dict.fromkeys(field for each in flat for field in each)
    found = [
        FieldDifference(field, [each.get(field, ABSENT) for each in flat])
        for field in fields
        if field not in _IGNORED
    ]
    return [difference for difference in found if len(set(difference.values)) > 1]


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [
            leaf
            for key, entry in value.items()
            for leaf in _flat(entry, f"{path}.{key}" if path else str(key))
        ]
    if _is_named(value):
        return [leaf for entry in value for leaf in _flat(entry, f"{path}.{entry['name']}")]
    return [(path, _text(value))]


def _is_named(value: Any) -> bool:
    """Whether it is a list of things with names, such as domains."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(entry, Mapping) and "name" in entry for entry in value)
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
