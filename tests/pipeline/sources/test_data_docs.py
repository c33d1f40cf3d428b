"""docs/data.md shows what `--check` prints for every format, and the way from files to figures."""

import json
import os
import re
import shlex
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from jobs import multidomain
from jobs.ingest import main
from pipeline.config import load
from pipeline.sources.registry import FORMATS

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text()
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##)", GUIDE, re.M | re.S))
BLOCKS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.S)
WALK = GUIDE.split("## From files to a table of figures")[1].split("\n## ")[0]
# By mistake: what becomes of the config, and further options.
MISTAKES = {
    "a bad row": ("  cleaning: {max_bad_rows: 2}\n", "", []),
    "a column that is not there": ("customer_id", "client", []),
    "a file that is not there": ("events.csv", "evnts.csv", []),
    "dates, but no `timestamp_unit: iso`": ("      timestamp_unit: iso\n", "", []),
    "cleaning that leaves nobody": ("rows: 2", "rows: 2, k_core: 50", []),
    "a field that does not exist": (
        "name: shop\ndomains",
        "user_modle: {}\nname: shop\ndomains",
        [],
    ),
    "an option that does not exist": ("", "", ["--user-model.layer", "2"]),
}


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


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The folder that the page speaks of, as the current one; nothing is set for it yet."""
    folder = tmp_path / "DATA" / "shop"
    folder.mkdir(parents=True)
    rows = [
        f"c{n // 8 + 1},p{(n // 8 * 3 + n % 8 * 7) % 30 + 1},"
        f"{date(2024, 1, 1) + timedelta(days=n * 220 // 319)}"
        for n in range(320)
    ]
    header = "customer_id,product_id,date"
    events = [header, *rows, "c1,p1,yesterday", "c2,p2"]
    (folder / "events.csv").write_text("".join(f"{row}\n" for row in events))
    goods = ["product_id,name", *(f"p{n},Oak desk {n}" for n in range(1, 30))]
    (folder / "products.csv").write_text("".join(f"{row}\n" for row in goods))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRAREC_HOME", str(tmp_path))
    monkeypatch.setenv("HYDRAREC_DATA", "")
    return tmp_path


@pytest.mark.ray
def test_from_files_to_a_table_of_figures(shop, capsys, monkeypatch, ray_session):
    given, count, train = re.findall(r"```sh\n(.*?)```", WALK, re.S)
    export, check = given.splitlines()
    place = export.removeprefix("export HYDRAREC_DATA=").replace("$PWD", os.getcwd())
    monkeypatch.setenv("HYDRAREC_DATA", place)
    assert main(shlex.split(check)[2:]) == 0
    (shown,) = re.findall(r"```text\n(.*?)```", WALK, re.S)
    assert capsys.readouterr().out.startswith(shown)

    (config,) = re.findall(r'```yaml title="shop.yaml"\n(.*?)```', WALK, re.S)
    written = (shop / "shop.yaml").read_text()
    assert config == f"{written}  cleaning: {{max_bad_rows: 2}}\n"
    (shop / "shop.yaml").write_text(config)
    for command in (count, train):
        words = shlex.split(command)
        assert words[:2] == ["python", "jobs/multidomain.py"]
        assert multidomain.main(words[2:]) == 0
        output = capsys.readouterr().out
        assert "runs/shop/report.html" in output.replace("\n", "")
        models = words[words.index("--models") + 1 :]
        metrics = json.loads((shop / "runs" / "shop" / "metrics.json").read_text())
        assert list(metrics["domains"]["shop"]["models"]) == sorted(models)
    assert "corpus: reused" in output


def test_every_mistake_of_the_table_is_made():
    assert {mistake.replace("`", "") for mistake in messages()} == {
        mistake.replace("`", "") for mistake in MISTAKES
    }


def messages() -> dict[str, str]:
    """What the page says is said, by mistake."""
    table = GUIDE.split("## Mistakes, and what is said")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (`+)(.+)\2 \|$", table, re.M)
    return {mistake: sentence for mistake, _, sentence in rows}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_as_the_page_says(shop, capsys, monkeypatch, mistake):
    monkeypatch.setenv("HYDRAREC_DATA", str(shop / "DATA"))
    (config,) = re.findall(r'```yaml title="shop.yaml"\n(.*?)```', WALK, re.S)
    old, new, options = MISTAKES[mistake]
    assert old in config
    (shop / "shop.yaml").write_text(config.replace(old, new, 1) if old else config)
    assert multidomain.main(["--config", "shop.yaml", "--models", "popularity", *options]) == 2
    said = capsys.readouterr().err.removeprefix("error: ").strip()
    pattern = ".*".join(re.escape(part) for part in messages()[mistake].split("..."))
    assert re.match(pattern, said), said
    store = shop / "runs" / ".store"
    assert not store.exists() or not list(store.glob("corpus-*")), "the store is left as it was"
