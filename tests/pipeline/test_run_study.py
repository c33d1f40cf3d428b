"""The page and the files of a study of runs, from made-up figures."""

import re

import numpy as np
import pytest
import yaml

from pipeline.run_study import RunCellResult, RunFigures, RunStudy, load_run_study
from pipeline.run_study_page import run_study_plot, run_study_table, write_run_study_page

SHOP = {"format": "simulated", "catalogue": "books"}
STUDY = {
    "name": "poor",
    "title": "Poor text",
    "kind": "runs",
    "run": {"domains": [{"name": "books", "source": SHOP}, {"name": "garden", "source": SHOP}]},
    "shown": ["hydra_single", "hydra_joint"],
    "x_title": "share of the text destroyed",
    "cells": [
        {"name": "whole", "about": "as it is", "x": 0.0},
        {"name": "half", "about": "half cut", "line": "cut", "x": 0.5,
         "change": {"poor_text": {"how": "cut", "share": 0.5}}},
        {"name": "none", "about": "all gone", "line": "empty", "x": 1.0,
         "change": {"poor_text": {"how": "empty", "share": 1.0}}},
    ],
}  # fmt: skip


@pytest.fixture
def study_of(tmp_path):
    def load(**fields):
        path = tmp_path / "poor.yaml"
        path.write_text(yaml.safe_dump(STUDY | fields))
        return load_run_study(path)

    return load


def figures(seed, books, garden, cold=0.01, models=("hydra_joint",)):
    def bucket(value):
        return {"item/cold": {"users": 9, **dict.fromkeys(models, value)}}

    return RunFigures(
        seed=seed,
        seconds=3.0,
        users={"books": 90, "garden": 40},
        items={"books": 50, "garden": 30},
        test={"books": dict.fromkeys(models, books), "garden": dict.fromkeys(models, garden)},
        buckets={"books": bucket(cold), "garden": bucket(cold * 2)},
        validation=dict.fromkeys(models, (books + garden) / 2),
    )


def results(study, *rows):
    """Made-up results of the first cells, each a list of figures."""
    found = []
    for cell, seeds in zip(study.cells, rows, strict=False):
        found.append(
            RunCellResult(
                study=study.name, cell=cell.name, about=cell.about, change=cell.change,
                line=cell.line, x=cell.x, config_hash="c" * 64, command="", seeds=tuple(seeds),
            )
        )  # fmt: skip
    return found


def cells_of(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_a_line_a_cell_and_differences_to_the_first(study_of):
    study = study_of()
    rows = results(
        study,
        [figures(0, 0.10, 0.20), figures(1, 0.12, 0.20)],
        [figures(0, 0.09, 0.16)],
    )
    head, _, whole, half = map(cells_of, run_study_table(study, rows, "hydra_joint").splitlines())
    assert head == ["cell", "books", "garden", "mean", "validation", "seeds", "config"]
    assert whole[:4] == ["as it is", "0.1100 ± 0.0141", "0.2000 ± 0.0000", "0.1550 ± 0.0071"]
    assert half[:4] == ["half cut", "0.0900 (-0.0200)", "0.1600 (-0.0400)", "0.1250 (-0.0300)"]
    assert whole[4:6] == ["0.1550", "0 1"]
    assert run_study_table(study, rows, "hydra_single") == ""


def test_a_bucket_can_be_shown_instead_of_all_users(study_of):
    study = study_of(bucket="item/cold")
    rows = results(study, [figures(0, 0.1, 0.2, cold=0.03)])
    by_chance, line = map(cells_of, run_study_table(study, rows, "hydra_joint").splitlines()[2:])
    assert line[1:4] == ["0.0300", "0.0600", "0.0450"]
    gain = sum(1 / np.log2(1 + np.arange(1, 11)))
    assert by_chance[1:3] == [f"{gain / 50:.4f}", f"{gain / 30:.4f}"]


def test_the_plot_has_a_panel_a_domain_and_a_line_a_way(study_of):
    study = study_of()
    rows = results(
        study, [figures(0, 0.1, 0.2)], [figures(0, 0.09, 0.16)], [figures(0, 0.05, 0.08)]
    )
    drawn = run_study_plot(study, rows)
    words = re.findall(r"<text[^>]*>([^<]+)</text>", drawn)
    assert {"books", "garden", "cut, Hydra joint", "empty, Hydra joint"} <= set(words)
    assert drawn == run_study_plot(study, rows)


def test_the_page_is_written_and_written_again(study_of, tmp_path):
    study = study_of()
    rows = results(study, [figures(0, 0.1, 0.2)])
    page = write_run_study_page(tmp_path, study, rows, "python jobs/study.py poor")
    first = page.read_text()
    assert "    python jobs/study.py poor" in first
    assert "(poor.svg)" in first
    assert (tmp_path / "studies" / "poor.svg").is_file()
    assert write_run_study_page(tmp_path, study, rows, "python jobs/study.py poor") == page
    assert page.read_text() == first


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cells": [{"name": "a", "about": "a"}] * 2}, "names must differ"),
        (
            {"cells": [{"name": "a", "about": "a", "change": {"poor_text.shar": 1}}]},
            "cell a.*poor_text",
        ),
        ({"shown": []}, "shown"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(study_of, fields, message):
    with pytest.raises(ValueError, match=message):
        study_of(**fields)


def test_an_unknown_cell_is_refused_by_name(study_of):
    with pytest.raises(ValueError, match="there is no cell hafl; did you mean `half`"):
        study_of().cell("hafl")


def test_results_of_another_config_are_not_taken(study_of, tmp_path):
    study = study_of()
    run = RunStudy(study, tmp_path, tmp_path / "runs")
    fresh = run.result(study.cells[0], "make it")
    assert fresh.seeds == ()
    stored = fresh.model_copy(update={"seeds": (figures(0, 0.1, 0.2),)})
    (tmp_path / "poor.whole.json").write_text(stored.model_dump_json())
    assert run.finished() == [stored]
    other = study_of(run=STUDY["run"] | {"user_model": {"layers": 3}})
    assert RunStudy(other, tmp_path, tmp_path / "runs").finished() == []
