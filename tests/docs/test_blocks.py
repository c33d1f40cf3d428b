"""Blocks of YAML are configs, blocks of Python run, and fields named in the text exist."""

import importlib.util
import re
from functools import cache
from typing import Any

import pytest
import yaml
from page_parts import PAGES, ROOT, Block, blocks, inline_code

from pipeline.config import RunConfig, load
from pipeline.config_fields import sections
from pipeline.config_help import domain_sections
from pipeline.config_overrides import put_field
from pipeline.search_config import load_search
from pipeline.search_space import plan_trials
from pipeline.study_config import load_study

SOURCE = {"format": "simulated", "catalogue": "books"}
# Domains that fragments on the pages name.
NAMES = ("books", "toys", "industrial")
BASE: dict[str, Any] = {
    "name": "base",
    "domains": [{"name": name, "source": SOURCE} for name in NAMES],
    "item_llm": {"lora": None},
}
YAML = [b for page in PAGES for b in blocks(page) if b.language == "yaml"]
PYTHON = [b for page in PAGES for b in blocks(page) if b.language == "python"]
FIELD = re.compile(r"([a-z_0-9]+(?:\.[a-z_0-9]+)+)(?:: (.+))?")


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_loads_as_what_it_is(block: Block, tmp_path):
    content = yaml.safe_load(block.text)
    file = tmp_path / "shown.yaml"
    if "space" in content:
        file.write_text(block.text)
        search = load_search(file)
        plan_trials(search, load(ROOT / "configs" / "beauty.yaml"), str(file))
    elif "cells" in content:
        (tmp_path / "studies").mkdir()
        (tmp_path / "beauty.yaml").write_text((ROOT / "configs" / "beauty.yaml").read_text())
        file = tmp_path / "studies" / "shown.yaml"
        file.write_text(block.text)
        assert load_study(file).cells
    else:
        base = {key: value for key, value in BASE.items() if key not in content}
        file.write_text(f"{yaml.safe_dump(base) if base else ''}{block.text}")
        assert load(file).domains


# Run by tests/pipeline/sources, in its place, and by tests/pipeline/recommender, with a bundle.
ELSEWHERE = ("CONTRIBUTING.md", "README.md", "docs/serving.md")


@pytest.mark.parametrize("block", [b for b in PYTHON if b.page not in ELSEWHERE], ids=str)
def test_python_runs(block: Block):
    exec(compile(block.text, str(block), "exec"), {})


@cache
def places() -> frozenset[str]:
    """Every field and section of a run's config and of a domain, dotted."""
    found = [*sections(RunConfig), *domain_sections()]
    fields = {field.path for section in found for field in section.fields}
    return frozenset(fields | {section.path for section in found} - {""})


@cache
def parts() -> frozenset[str]:
    """What a field's path may begin with where a page does not give it whole."""
    return frozenset(part for place in places() for part in place.split(".")[:-1]) | {"split"}


def is_name(path: str) -> bool:
    """Whether it is a module or a name in one, and no field: user_model.ops."""
    module, _, attribute = path.rpartition(".")
    if not (ROOT / module.split(".")[0]).is_dir():
        return False
    try:
        return bool(importlib.util.find_spec(path)) or hasattr(
            importlib.import_module(module), attribute
        )
    except ModuleNotFoundError:
        return False


def exists(path: str) -> bool:
    """Whether it is a field or a section, or stands in a field that is a mapping of fields."""
    place, _, below = path.partition(".joint.")
    if below:
        return exists(f"{place}.joint") and exists(f"{place}.training.{below}")
    return any(found == path or found.endswith(f".{path}") for found in places())


@pytest.mark.parametrize("page", PAGES)
def test_fields_named_in_the_text_exist(page, tmp_path):
    for line, code in inline_code(page):
        found = FIELD.fullmatch(code)
        if not found or found[1].split(".")[0] not in parts():
            continue
        path = found[1]
        if re.search(r"\.(yaml|py|md|json|jsonl|html|lance|tsv|csv|txt|gz)$", path):
            continue
        assert exists(path) or is_name(path), f"{page}:{line}: there is no field {code}"
        if found[2] and path in places() and not re.search(r"\b[A-Z]{3,}|\.\.\.", found[2]):
            file = tmp_path / "shown.yaml"
            file.write_text(yaml.safe_dump(nested(path, yaml.safe_load(found[2]))))
            load(file)


def nested(path: str, value: Any) -> dict[str, Any]:
    """The base with one field in it."""
    return put_field(BASE, path.split("."), value)


def test_fields_are_really_looked_for():
    assert {"user_model.training.lr", "split.kind", "domains.N.cleaning.k_core"} <= places()
    assert FIELD.fullmatch("training.lr")
    assert not any(place.endswith(".training.learning_rate") for place in places())
    assert not is_name("user_model.training_rate")
