"""docs/data.md shows what `--check` prints, for every format."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from jobs.ingest import main
from pipeline.config import load
from pipeline.sources.registry import FORMATS

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text()
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##)", GUIDE, re.M | re.S))
BLOCKS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.S)


def test_every_format_has_a_section():
    assert SECTIONS.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"simulated"}))
def test_the_yaml_shown_is_the_yaml_printed(tmp_path, monkeypatch, capsys, small_data, name):
    small_data(tmp_path / "DATA", name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRAREC_DATA", "DATA")
    (command,) = re.findall(r"^python jobs/ingest\.py (.*)$", SECTIONS[name], re.M)
    assert main(shlex.split(command)) == 0
    shown = re.search(r"```yaml\n(.*?)```", SECTIONS[name], re.S)
    assert capsys.readouterr().out.endswith(f"\n\n{shown[1]}")


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_yaml_shown_is_a_config(tmp_path, number):
    file = tmp_path / "run.yaml"
    file.write_text(f"name: shown\n{BLOCKS[number]}")
    assert len(load(file).domains) == 1
    assert len(yaml.safe_load(BLOCKS[number])) == 1


def test_the_fields_of_cleaning_shown_have_their_defaults():
    from pipeline.cleaning import CleaningConfig

    table = GUIDE.split("## What cleaning does")[1].split("```")[0]
    shown = dict(re.findall(r"`(\w+): (\w+)`", table))
    defaults = CleaningConfig.model_validate({}).model_dump()
    assert {name: yaml.safe_load(value) for name, value in shown.items()} == defaults
