"""jobs/study.py from the command line, on a study of one small cell."""

import json
from pathlib import Path

import pytest

from jobs import study
from pipeline.profile_study import load_profile
from pipeline.run_study import load_run_study
from pipeline.strict_yaml import load_mapping
from pipeline.study_config import load_study

STUDIES = sorted((Path(__file__).parents[2] / "configs" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_of_the_project_are_sound(path):
    loads = {"profile": load_profile, "runs": load_run_study}
    load = loads.get(load_mapping(path).get("kind"), load_study)
    assert load(path).name == path.stem


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRAREC_HOME", str(tmp_path))
    source = {"format": "simulated", "catalogue": "books", "population": 60, "items": 30}
    content = {
        "name": "small",
        "title": "Small",
        "run": {
            "domains": [{"name": "books", "source": source | {"mean_history": 6}}],
            "user_model": {
                "dim": 16, "layers": 1, "training": {"epochs": 1, "negatives": 8},
            },
        },
        "cells": [{"name": "only", "about": "the only one"}],
    }  # fmt: skip
    folder = tmp_path / "configs" / "studies"
    folder.mkdir(parents=True)
    (folder / "small.yaml").write_text(json.dumps(content))
    return tmp_path


def test_figures_and_table_are_written(small, capsys):
    assert study.main(["small", "--seeds", "0"]) == 0
    result = json.loads((small / "docs" / "results" / "small.only.json").read_text())
    assert result["command"] == "python jobs/study.py small --cells only --seeds 0"
    page = (small / "docs" / "results.md").read_text()
    assert "## Small" in page
    assert f"{result['summary']['ndcg@10']['mean']:.4f}" in page
    assert "only: ndcg@10 " in capsys.readouterr().out
    (small / "docs" / "results.md").unlink()
    assert study.main(["small", "--table"]) == 0
    assert (small / "docs" / "results.md").read_text() == page


def test_a_study_may_have_a_page_of_its_own(small):
    file = small / "configs" / "studies" / "small.yaml"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"own_page": True}))
    assert study.main(["small"]) == 0
    assert (
        "![test ndcg@10 of each cell](small.svg)"
        in (small / "docs" / "studies" / "small.md").read_text()
    )
    assert "the only one" in (small / "docs" / "studies" / "small.svg").read_text()
    assert not (small / "docs" / "results.md").exists()


def test_a_profile_is_measured_and_goes_on(small, capsys):
    content = {
        "kind": "profile", "name": "quick", "title": "Quick", "models": ["hydra_ids", "sasrec"],
        "lengths": [4, 16], "tokens": 64, "repetitions": 2,
        "run": {"user_model": {"dim": 16, "layers": 1}, "sasrec": {"dim": 16, "layers": 1}},
    }  # fmt: skip
    file = small / "configs" / "studies" / "quick.yaml"
    file.write_text(json.dumps(content))
    assert study.main(["quick"]) == 0
    results = small / "docs" / "results" / "quick.json"
    rows = json.loads(results.read_text())["measured"]
    assert [(row["model"], row["length"]) for row in rows] == [
        ("hydra_ids", 4), ("sasrec", 4), ("hydra_ids", 16), ("sasrec", 16),
    ]  # fmt: skip
    assert all(row["peak_bytes"] > 0 and len(row["seconds"]) == 2 for row in rows)
    page = (small / "docs" / "studies" / "quick.md").read_text()
    ratio = rows[3]["microseconds"] / rows[2]["microseconds"]
    (line,) = (line for line in page.splitlines() if line.startswith("| 16 |"))
    assert line.endswith(f"| {ratio:.2f} |")
    assert "hydra_ids" in (small / "docs" / "studies" / "quick.svg").read_text()
    before, _ = results.read_text(), capsys.readouterr()
    assert study.main(["quick"]) == 0
    assert results.read_text() == before
    assert capsys.readouterr().out == ""
    assert study.main(["quick", "--seeds", "1"]) == 2
    assert "a profile has neither" in capsys.readouterr().err


def test_mistakes_are_told_in_a_sentence(small, capsys):
    assert study.main(["smal"]) == 2
    assert "study: got 'smal', expected small, or a path" in capsys.readouterr().err
    assert study.main(["small", "--cells", "onli"]) == 2
    assert "only" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
def test_a_study_of_runs_goes_through_all_stages_once(tmp_path, monkeypatch, capsys):
    shop = {"format": "simulated", "catalogue": "books", "population": 200, "items": 40}
    content = {
        "name": "runs",
        "title": "Texts or none",
        "kind": "runs",
        "run": {
            "store": str(tmp_path / "store"),
            "domains": [{"name": "books", "source": shop | {"mean_history": 6}}],
            "models": ["popularity", "hydra_frozen"],
            "item_llm": {"encoder": {"base": "static", "max_tokens": 16}, "lora": None},
            "user_model": {"dim": 16, "layers": 1, "training": {"epochs": 2, "negatives": 16}},
        },
        "shown": ["popularity", "hydra_frozen"],
        "x_title": "share of items without text",
        "cells": [
            {"name": "whole", "about": "as it is", "x": 0.0},
            {"name": "none", "about": "none", "line": "empty", "x": 1.0,
             "change": {"poor_text": {"how": "empty", "share": 1.0}}},
        ],
    }  # fmt: skip
    path = tmp_path / "runs.yaml"
    path.write_text(json.dumps(content))
    options = [str(path), "--out", str(tmp_path / "docs")]
    monkeypatch.setenv("HYDRAREC_HOME", str(tmp_path))
    assert study.main(options) == 0
    cells = {
        name: json.loads((tmp_path / "docs" / "results" / f"runs.{name}.json").read_text())
        for name in ("whole", "none")
    }
    figures = {name: cell["seeds"][0]["test"]["books"] for name, cell in cells.items()}
    assert figures["whole"]["popularity"] == figures["none"]["popularity"]
    assert figures["whole"]["hydra_frozen"] != figures["none"]["hydra_frozen"]
    assert 0 < cells["whole"]["seeds"][0]["validation"]["hydra_frozen"] < 1
    page = (tmp_path / "docs" / "studies" / "runs.md").read_text()
    assert f"{figures['none']['hydra_frozen']:.4f}" in page
    capsys.readouterr()
    assert study.main(options) == 0
    assert "[1/" not in capsys.readouterr().out, "nothing is run again"
