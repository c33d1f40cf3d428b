"""jobs/study.py from the command line, on a study of one small cell."""

import json
from pathlib import Path

import pytest

from jobs import study
from pipeline.study_config import load_study

STUDIES = sorted((Path(__file__).parents[2] / "configs" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_of_the_project_are_sound(path):
    assert load_study(path).name == path.stem


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


def test_mistakes_are_told_in_a_sentence(small, capsys):
    assert study.main(["smal"]) == 2
    assert "study: got 'smal', expected small, or a path" in capsys.readouterr().err
    assert study.main(["small", "--cells", "onli"]) == 2
    assert "only" in capsys.readouterr().err
