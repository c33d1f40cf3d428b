"""Configs as keys: what was trained is found again by a hash of its config."""

from collections.abc import Collection
from typing import Any

from pydantic import BaseModel


def key_fields(config: BaseModel, exclude: Collection[str] = ()) -> dict[str, Any]:
    """All fields as JSON values, without those that came later and do nothing.

    A class names such fields in CAME_LATER, each with the value by which everything is what it was
    before. So a new field that is not used leaves the keys of older outputs as they were.

    Args:
        config: of what is found again.
        exclude: fields of its own that decide nothing.

    >>> from typing import ClassVar
    >>> class Shape(BaseModel):
    ...     CAME_LATER: ClassVar[dict[str, Any]] = {"depth": 1}
    ...     width: int
    ...     depth: int = 1
    >>> key_fields(Shape(width=3)), key_fields(Shape(width=3, depth=2))
    ({'width': 3}, {'width': 3, 'depth': 2})
    """
    fields = config.model_dump(mode="json")
    for name in type(config).model_fields:
        part = getattr(config, name)
        if isinstance(part, BaseModel):
            fields[name] = key_fields(part)
    return {
        name: value
        for name, value in fields.items()
        if name not in exclude and not _does_nothing(config, name, value)
    }


def _does_nothing(config: BaseModel, name: str, value: Any) -> bool:
    return any(
        name in (later := vars(base).get("CAME_LATER", {})) and later[name] == value
        for base in type(config).__mro__
    )
