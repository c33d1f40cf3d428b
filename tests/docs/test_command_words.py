"""What a command names is there: files, targets, studies, modules, options, fields of a config."""

import importlib.util
import re
import tomllib
from functools import cache

import pytest
from page_parts import PAGES, ROOT, commands

from pipeline.config import RunConfig, load
from pipeline.config_fields import sections

PLACEHOLDER = re.compile(r"\.\.\.|[A-Z]+(/\S*)?|(YOURS|RUN)\.yaml|shop\.yaml")
OF_THE_REPOSITORY = re.compile(r"(configs|cluster|jobs|tests|docs)/\S+")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_command_names_is_there(page):
    """Files, make's targets, studies and cells, extras, modules."""
    makefile = (ROOT / "Makefile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for command in commands(page):
        words = command.words
        for word in words:
            if OF_THE_REPOSITORY.fullmatch(word):
                assert list(ROOT.glob(word)), f"{command}: there is no {word}"
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.M), command
        if words[:2] == ["pip", "install"]:
            (extra,) = re.findall(r"hydrarec\[(\w+)\]", words[2])
            assert extra in extras["optional-dependencies"], command
        if words[:2] == ["python", "jobs/study.py"]:
            study = ROOT / "configs" / "studies" / f"{words[2]}.yaml"
            assert study.is_file(), command
            for cell in values_of("--cells", words):
                assert re.search(rf"name: {cell}\b", study.read_text()), f"{command}: {cell}"
        if words[:2] == ["python", "-m"] and "NAME" not in words[2]:
            assert importlib.util.find_spec(words[2]), command


@pytest.mark.parametrize("page", PAGES)
def test_options_are_those_of_the_job(page):
    for command in commands(page):
        words = command.words
        options = {word.split("=")[0] for word in words if word.startswith("--") and word != "--"}
        if words[0] != "python" or not options or "benchmarks.NAME" in words:
            continue
        known = options_of(words[2] if words[1] == "-m" else words[1])
        assert options <= known, f"{command}: {sorted(options - known)}"


@pytest.mark.parametrize("page", PAGES)
def test_a_config_takes_the_options_that_stand_beside_it(page):
    for command in commands(page):
        words = command.words
        if words[:2] not in (["python", "jobs/multidomain.py"], ["python", "jobs/tune.py"]):
            continue
        (config,) = values_of("--config", words) or ["configs/demo.yaml"]
        if PLACEHOLDER.fullmatch(config):
            config = "configs/demo.yaml"
        own = {"--config", "--run-dir", "--plan", "--help", "--space"}
        load(ROOT / config, overrides_in(words, own))


def overrides_in(words: list[str], own: set[str]) -> list[str]:
    """The options that set fields of the config, with their values."""
    kept: list[str] = []
    ours = False
    for word in words[2:]:
        if word.startswith("--"):
            ours = word in own
        if not ours:
            kept.append(word)
    return kept


def values_of(option: str, words: list[str]) -> list[str]:
    """The words that follow an option."""
    if option not in words:
        return []
    rest = words[words.index(option) + 1 :]
    return rest[: next((n for n, word in enumerate(rest) if word.startswith("--")), len(rest))]


@cache
def options_of(program: str) -> set[str]:
    """The options that a job or a module takes."""
    path = program if program.endswith(".py") else f"{program.replace('.', '/')}.py"
    text = (ROOT / path).read_text()
    if program == "pipeline.config":
        text += (ROOT / "pipeline" / "config_command.py").read_text()
    found = set(re.findall(r'"(--[a-z][a-z0-9-]*)"', text)) | {"--help"}
    if program.startswith("benchmarks"):
        text = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
        found |= set(re.findall(r'"(--[a-z][a-z0-9-]*)"', text))
    if "**overrides" in text or "overrides" in text:
        found |= {field.option for section in sections(RunConfig) for field in section.fields}
    return found
