"""YAML as people mean it: duplicate keys are refused, and 1e-4 is a number.

PyYAML keeps the last of two equal keys and reads `1e-4` as a string (YAML 1.1 wants a dot);
both have cost people a night of training.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
        |\.[0-9_]+(?:[eE][-+][0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
    re.X,
)


_MERGE = "tag:yaml.org,2002:merge"


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and reads exponents without a dot."""


def _mapping_without_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        merges = key_node.tag == _MERGE  # `<<`, which is no value of its own
        key = "<<" if merges else loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice (lines {seen[key]} and {line})"
            )
        seen[key] = line
    loader.flatten_mapping(node)
    return {
        loader.construct_object(k, deep=True): loader.construct_object(v, deep=True)
        for k, v in node.value
    }


_StrictLoader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates
)
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def load_mapping(path: Path) -> dict[str, Any]:
    """Read one YAML file that holds a mapping.

    Raises:
        ValueError: the file is absent, is not YAML, repeats a key, or holds no mapping; the
            message names the file and the line.
    """
    if not path.is_file():
        raise ValueError(f"--config {path}: there is no such file; configs/ holds examples")
    try:
        content = load_value(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds {type(content).__name__}, expected a mapping of fields such as `name:`"
        )
    return content


def load_value(text: str) -> Any:
    """What a text of YAML holds, read strictly: 1e-4 is a number, `true` a truth value.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    # _StrictLoader is a SafeLoader: it makes plain data and nothing else.
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return " ".join(f"{problem}{where}".split())
