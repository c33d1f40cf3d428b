"""A study on a small simulated domain: cells, seeds, going on, the table."""

import json
import os
import xml.etree.ElementTree as ET

import pytest

from pipeline.corpus import Corpus
from pipeline.evaluation import EvaluationConfig
from pipeline.locks import BusyError, exclusive_lock
from pipeline.metrics import ndcg
from pipeline.paths import project_root
from pipeline.profile_study import load_profile
from pipeline.ranking import baseline_ranks
from pipeline.run_study import load_run_study
from pipeline.splits import SplitConfig
from pipeline.strict_yaml import load_mapping
from pipeline.study_cells import StudyRun
from pipeline.study_config import StudyConfig, load_study
from pipeline.study_plot import study_plot
from pipeline.study_results import CellResult, SeedResult, study_table

TRAINING = {"epochs": 2, "negatives": 16, "batch_tokens": 512, "warmup_steps": 2}
SOURCE = {"format": "simulated", "catalogue": "books", "population": 100, "items": 40}
RUN = {
    "domains": [{"name": "books", "source": SOURCE | {"mean_history": 6}}],
    "user_model": {"dim": 16, "layers": 1, "training": TRAINING},
}
STUDIES = sorted((project_root() / "configs" / "studies").glob("*.yaml"))
SVG = "{http://www.w3.org/2000/svg}"


def study(**fields):
    cells = [
        {"name": "full", "about": "all of it"},
        {"name": "ema", "about": "averaged", "change": {"user_model.training.ema_decay": 0.5}},
    ]
    return StudyConfig.model_validate(
        {"name": "small", "title": "A small study", "run": RUN, "cells": cells} | fields
    )


def run_of(given, folder, tell=lambda line: None):
    return StudyRun(given, folder / "results", folder / "work", folder, tell)


def test_cells_are_trained_once_and_kept(tmp_path):
    lines = []
    run = run_of(study(), tmp_path, lines.append)
    full, ema = (run.run(cell, (0, 1), "the command") for cell in run.study.cells)
    assert [result.seed for result in full.seeds] == [0, 1]
    assert full.config_hash != ema.config_hash
    assert full.seeds[0].test != full.seeds[1].test
    assert all(0 < result.test["ndcg@10"] < 1 and result.epochs == 2 for result in full.seeds)
    content = json.loads((tmp_path / "results" / "small.ema.json").read_text())
    assert content["change"] == {"user_model.training.ema_decay": 0.5}
    values = [result["test"]["ndcg@10"] for result in content["seeds"]]
    assert content["summary"]["ndcg@10"]["mean"] == pytest.approx(sum(values) / 2)
    told = len(lines)
    again = run_of(study(), tmp_path, lines.append)
    assert [again.run(cell, (0, 1), "the command") for cell in again.study.cells] == [full, ema]
    assert len(lines) == told


def test_a_refit_learns_from_validation_for_the_epochs_that_were_best(tmp_path):
    cells = [
        {"name": "strict", "about": "strict", "model": "sasrec"},
        {"name": "again", "about": "refit", "refit": "strict", "against": "strict"},
    ]
    sasrec = {"dim": 16, "layers": 1, "training": TRAINING | {"epochs": 6, "patience": 1}}
    given = study(cells=cells, run=RUN | {"sasrec": sasrec})
    run = run_of(given, tmp_path)
    strict, again = run.study.cells
    with pytest.raises(ValueError, match="cell again: the epochs of seed 1 are chosen by the cell"):
        run.run(again, (1,), "")
    chosen = run.run(strict, (0, 1), "")
    refit = run.run(again, (0, 1), "")
    assert refit.model == "sasrec"
    assert refit.config_hash != chosen.config_hash
    assert [r.epochs for r in refit.seeds] == [r.best_epoch for r in chosen.seeds]
    assert all(r.validation is None for r in refit.seeds)
    assert [r.test for r in refit.seeds] != [r.test for r in chosen.seeds]
    assert run.run(again, (0, 1), "") == refit


def test_a_baseline_only_counts_under_both_splits(tmp_path):
    cells = [
        {"name": "popular", "about": "popular", "model": "popularity"},
        {"name": "again", "about": "refit", "refit": "popular"},
        {"name": "knn", "about": "beside it", "model": "item_knn"},
    ]
    run = run_of(study(cells=cells), tmp_path)
    strict, refit, knn = (run.run(cell, (4, 5), "") for cell in run.study.cells)
    assert [result.seed for result in strict.seeds] == [4]
    # The validation events count too.
    ranks = baseline_ranks(
        "popularity", Corpus.open(run._corpus(run.study.cells[0])), "books",
        SplitConfig(kind="refit"), EvaluationConfig(),
    )  # fmt: skip
    assert refit.seeds[0].test["ndcg@10"] == pytest.approx(ndcg(ranks, 10).mean())
    assert len({result.seeds[0].test["ndcg@10"] for result in (strict, refit, knn)}) == 3
    assert len({result.config_hash for result in (strict, refit, knn)}) == 3
    line = study_table([strict], ["ndcg@10"]).splitlines()[2]
    assert line == (
        f"| popular | {strict.mean('ndcg@10'):.4f} |  |  |  |  |  | `{strict.config_hash[:8]}` |"
    )


class KilledError(Exception):
    pass


def test_a_stopped_study_goes_on_and_gives_the_same_figures(tmp_path):
    whole = run_of(study(), tmp_path / "whole")
    expected = whole.run(whole.study.cells[0], (0, 1), "")

    def stop(line):
        if line.startswith("full, seed 1: 1/2"):
            raise KilledError

    stopped = run_of(study(), tmp_path / "stopped", stop)
    with pytest.raises(KilledError):
        stopped.run(stopped.study.cells[0], (0, 1), "")
    lines = []
    going_on = run_of(study(), tmp_path / "stopped", lines.append)
    got = going_on.run(going_on.study.cells[0], (0, 1), "")
    assert [r.test for r in got.seeds] == [r.test for r in expected.seeds]
    assert [line.partition("  ")[0] for line in lines] == ["full, seed 1: 2/2 epochs"]


def test_a_cell_that_another_process_trains_is_left_to_it(tmp_path):
    run = run_of(study(), tmp_path)
    cell = run.study.cells[0]
    folder = tmp_path / "work" / f"full-{run.config_hash(cell)[:16]}" / "seed-0"
    with (
        exclusive_lock(folder / ".lock", wait=False),
        pytest.raises(BusyError, match=f"seed-0 is in use by process {os.getpid()}"),
    ):
        run.run(cell, (0,), "")
    assert [result.seed for result in run.run(cell, (0,), "").seeds] == [0]


def test_a_page_calls_cells_what_the_study_calls_them_now(tmp_path):
    before = run_of(study(), tmp_path)
    before.run(before.study.cells[0], (0,), "")
    renamed = [{"name": "full", "about": "everything"}]
    run_of(study(cells=renamed), tmp_path).write_page(tmp_path, "the command")
    page = (tmp_path / "results.md").read_text()
    assert "| everything |" in page
    assert "all of it" not in page


def test_a_page_says_what_was_trained_under_another_config(tmp_path):
    before = run_of(study(), tmp_path)
    before.run(before.study.cells[0], (0,), "")
    cells = [{"name": "full", "about": "wider", "change": {"user_model.dim": 24}}]
    run_of(study(cells=cells), tmp_path).write_page(tmp_path, "the command")
    page = (tmp_path / "results.md").read_text()
    assert "| all of it (of an older config) |" in page
    assert "wider" not in page


def test_seeds_of_two_processes_come_together_in_one_file(tmp_path):
    """The second one adds its seed while the first trains: neither is lost."""
    cell = study().cells[0]

    def tell(line):
        if line.startswith("full, seed 0: 2/2"):
            run_of(study(), tmp_path).run(cell, (1,), "the command")

    result = run_of(study(), tmp_path, tell).run(cell, (0, 2), "the command")
    assert [one.seed for one in result.seeds] == [0, 1, 2]
    assert result.command == "the command --seeds 0 1 2"
    alone = run_of(study(), tmp_path / "alone").run(cell, (0, 1, 2), "the command")
    assert [one.test for one in result.seeds] == [one.test for one in alone.seeds]


def test_a_cell_of_another_config_is_run_anew(tmp_path):
    before = run_of(study(), tmp_path)
    before.run(before.study.cells[0], (0,), "")
    run = json.loads(json.dumps(RUN))
    run["user_model"]["training"]["lr"] = 1e-2
    after = run_of(study(run=run), tmp_path)
    result = after.run(after.study.cells[0], (3,), "")
    assert [r.seed for r in result.seeds] == [3]


def result_of(cell, values, **fields):
    seeds = [
        SeedResult(
            seed=seed, test={"ndcg@10": value}, validation=0.5, epochs=8, best_epoch=6,
            seconds=10.0 + seed, parameters=99,
        )
        for seed, value in enumerate(values)
    ]  # fmt: skip
    return CellResult(
        study="s", cell=cell, about=f"about {cell}", change={}, model="hydra_ids",
        config_hash="0123456789abcdef", command="", seeds=tuple(seeds), **fields,
    )  # fmt: skip


def test_the_table_is_what_the_files_hold():
    again = result_of("c", [0.06], against="b", refit="a")
    cells = [result_of("a", [0.04, 0.06]), result_of("b", [0.055]), again]
    table = study_table(cells, ["ndcg@10"])
    assert table.splitlines()[2:] == [
        "| about a | 0.0500 ± 0.0141 |  | 99 | 0 1 | 6/8, 6/8 | 10 (wall) | `01234567` |",
        "| about b | 0.0550 | +10.0% | 99 | 0 | 6/8 | 10 (wall) | `01234567` |",
        "| about c | 0.0600 | +9.1% to about b | 99 | 0 | 8 | 10 (wall) | `01234567` |",
    ]


def test_times_are_of_the_processor_where_they_were_kept(tmp_path):
    result = run_of(study(), tmp_path).run(study().cells[0], (0, 1), "")
    cpu = [seed.cpu_seconds for seed in result.seeds]
    cores = os.cpu_count() or 1
    assert all(0 < one < 1.1 * cores * s.seconds for one, s in zip(cpu, result.seeds, strict=True))
    line = study_table([result], ["ndcg@10"]).splitlines()[2]
    assert f"| {sum(cpu) / 2:.0f} |" in line
    older = result.seeds[1].model_copy(update={"cpu_seconds": None})
    mixed = result.model_copy(update={"seeds": (result.seeds[0], older)})
    assert "(wall) |" in study_table([mixed], ["ndcg@10"]).splitlines()[2]


def test_the_plot_has_every_cell_and_every_seed():
    cells = [result_of("a", [0.04, 0.06]), result_of("b", [0.055, 0.05, 0.06])]
    drawn = ET.fromstring(study_plot(cells, "ndcg@10"))
    assert study_plot(cells, "ndcg@10") == study_plot(cells, "ndcg@10")
    texts = ["".join(text.itertext()).strip() for text in drawn.iter(f"{SVG}text")]
    assert {"about a", "about b", "test ndcg@10"} <= set(texts)
    groups = [g for g in drawn.iter(f"{SVG}g") if g.get("id", "").startswith("PathCollection")]
    assert [len(list(g.iter(f"{SVG}use"))) for g in groups] == [2, 1, 3, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_model.training.emma": 0.5}, r"cell odd.*emma.*ema_decay"),
        ({"user_model.training.ema_decay": 2}, r"cell odd.*ema_decay"),
        ({"user_model.layers.x": 2}, r"cell odd.*layers"),
    ],
)
def test_a_cell_that_cannot_be_is_refused_before_anything_runs(change, message, tmp_path):
    path = tmp_path / "study.yaml"
    cells = [{"name": "odd", "about": "odd", "change": change}]
    path.write_text(json.dumps({"name": "s", "title": "t", "run": RUN, "cells": cells}))
    with pytest.raises(ValueError, match=message):
        load_study(path)


def test_a_run_may_stand_in_a_file_of_its_own(tmp_path):
    (tmp_path / "run.yaml").write_text(json.dumps(RUN))
    (tmp_path / "studies").mkdir()
    path = tmp_path / "studies" / "s.yaml"
    path.write_text(study().model_dump_json(exclude={"run"})[:-1] + ', "run": "../run.yaml"}')
    assert load_study(path) == study()
    (tmp_path / "run.yaml").unlink()
    with pytest.raises(ValueError, match=r"run\.yaml"):
        load_study(path)


@pytest.mark.parametrize("name", [path.stem for path in STUDIES])
def test_the_studies_of_the_project_can_be_read_and_are_named_as_their_files(name):
    path = project_root() / "configs" / "studies" / f"{name}.yaml"
    loads = {"profile": load_profile, "runs": load_run_study}
    load = loads.get(load_mapping(path).get("kind"), load_study)
    assert load(path).name == name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "hydra_joint"}, "model: got hydra_joint, expected one of ids alone"),
        ({"cells": [{"name": "a", "about": ""}] * 2}, "cells: got 'a' twice"),
        ({"cells": []}, "cells"),
        ({"sead": 3}, "sead"),
        (
            {"cells": [{"name": "a", "about": "", "model": "hydra_frozen"}]},
            "model: got hydra_frozen, expected one of ids alone",
        ),
        (
            {"cells": [{"name": "a", "about": "", "against": "b"}]},
            "cells: there is no cell b; known are a",
        ),
        ({"cells": [{"name": "a", "about": "", "refit": "a"}]}, "refit: a is a refit itself"),
        (
            {"cells": [{"name": "a", "about": "", "refit": "a", "model": "sasrec"}]},
            "cell a: got change or model beside refit",
        ),
    ],
)
def test_a_study_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        study(**fields)


def test_an_unknown_cell_is_told_what_there_is():
    with pytest.raises(ValueError, match="ema"):
        study().cell("emma")
