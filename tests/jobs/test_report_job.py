"""jobs/report.py: a report made again, and runs compared with the first of them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import report
from pipeline.artifacts import RunStore
from pipeline.config import RunConfig
from pipeline.metrics import ndcg
from pipeline.progress import Progress
from pipeline.ranks_file import load_ranks
from pipeline.recipe import RecipeBuilder
from pipeline.report_files import RunFiles
from pipeline.run_card import run_card
from pipeline.run_comparison import compare, read_runs
from pipeline.run_details import details, gather
from pipeline.stages import Runner
from pipeline.statistics import named_seed, paired_difference

ROOT = Path(__file__).resolve().parents[2]
SHOP = {"format": "simulated", "population": 300, "items": 60, "mean_history": 6}
DOMAINS = [
    {"name": "books", "source": SHOP | {"catalogue": "books", "share": 0.8}},
    {"name": "garden", "source": SHOP | {"catalogue": "garden", "share": 0.4}},
]


def made(folder: Path, name: str, **changes: Any) -> Path:
    """A run of what needs neither training nor Ray, by the stages that the main job runs."""
    store = folder / "store"
    content = {"name": name, "store": str(store), "domains": DOMAINS}
    content |= {"models": ["popularity", "item_knn"]} | changes
    config = RunConfig.model_validate(content)
    recipe = RecipeBuilder(config, folder, store).build()
    stages = Runner(RunStore(store), Progress(), slots=1).run(recipe.targets)
    card = run_card(
        config, stages, started="2026-03-14T09:26:53Z", seconds=1.5, details=details(recipe, stages)
    )
    files = gather(recipe, stages, card)
    files.write(folder / "runs" / name, report.render(files))
    return folder / "runs" / name


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("report"), "first")


@pytest.fixture
def swapped(first, tmp_path) -> Path:
    """A run in which popularity's figures are those of item_knn, and the other way round."""
    folder = shutil.copytree(first, tmp_path / "swapped")
    other = {"popularity": "item_knn", "item_knn": "popularity"}
    metrics, card = (
        json.loads((folder / name).read_text()) for name in ("metrics.json", "run.json")
    )
    of_domains = [domain["models"] for domain in metrics["domains"].values()]
    for models in [*of_domains, *metrics["groups"].values()]:
        models |= {a: models[b] for a, b in other.items()}
    for stage in card["stages"]:
        kind, _, model = stage["name"].partition(".")
        stage["name"] = f"{kind}.{other[model]}" if model in other else stage["name"]
    card["config"]["sasrec"]["dim"] = 48
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "run.json").write_text(json.dumps(card))
    return folder


def run_job(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/report.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def compared(a: Path, b: Path):
    return compare(*read_runs([a, b]))


def test_a_run_leaves_examples_beside_its_figures(first):
    files = RunFiles.read(first)
    assert files.examples is not None
    users = files.examples["users"]
    assert users["model"] == max(
        ("popularity", "item_knn"), key=lambda m: files.metrics["groups"]["all"][m]["ndcg@10"]
    )
    assert [user["domain"] for user in users["users"]] == ["books", "garden"] * 5
    assert all(user["top"][0]["text"] for user in users["users"])
    assert files.examples["neighbours"] is None


def test_the_report_of_one_run_is_made_again(first):
    page = first / "report.html"
    before = page.read_bytes()
    page.unlink()
    done = run_job(first)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"report: {page}\n"
    assert page.read_bytes() == before


def test_a_run_of_an_older_version_has_a_report_too(first, tmp_path):
    old = shutil.copytree(first, tmp_path / "old")
    (old / "examples.json").unlink()
    for domain in (data := json.loads((old / "data.json").read_text()))["domains"].values():
        del domain["first_refused"]
    (old / "data.json").write_text(json.dumps(data))
    done = run_job(old, "--out", tmp_path / "again.html")
    assert done.returncode == 0, done.stderr
    assert "kept no examples" in (tmp_path / "again.html").read_text()


def test_differences_are_paired_by_user(first, swapped):
    found = compared(first, swapped)
    assert found.unpaired is None
    store = Path(RunFiles.read(first).run["config"]["store"])
    [popularity], [knn] = (list(store.glob(f"rank.{m}-*")) for m in ("popularity", "item_knn"))
    rows = {(row.place, row.model): row for row in found.rows}
    assert set(rows) == {
        (place, model)
        for place in ("books", "garden", "all")
        for model in ("popularity", "item_knn", "oracle")
    }
    for domain in ("books", "garden"):
        estimate = paired_difference(
            ndcg(load_ranks(knn)[domain], 10),
            ndcg(load_ranks(popularity)[domain], 10),
            1000,
            named_seed(0, domain),
        )
        row = rows[domain, "popularity"]
        assert row.interval == estimate.interval
        assert row.value == pytest.approx(estimate.mean, abs=1e-6)
        assert row.value == -rows[domain, "item_knn"].value != 0
        assert rows[domain, "oracle"].interval.high == rows[domain, "oracle"].interval.low == 0
    mean = np.mean([rows[domain, "popularity"].value for domain in ("books", "garden")])
    assert rows["all", "popularity"].value == pytest.approx(mean, abs=1e-6)
    assert rows["all", "popularity"].interval is not None


def test_a_run_from_before_a_field_of_the_split_is_paired_all_the_same(first, swapped, tmp_path):
    old = shutil.copytree(first, tmp_path / "old")
    data = json.loads((old / "data.json").read_text())
    for name in ("cold_items", "train_people"):
        del data["split"][name]
    (old / "data.json").write_text(json.dumps(data))
    assert compared(old, swapped).unpaired is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"split": {"max_history": 3}}, r"their splits differ \(kind strict, max_history 50 and"),
        ({"evaluation": {"mask_seen": False}}, r"mask_seen differs \(True and False\)"),
        ({"domains": [*DOMAINS[:1]]}, r"their data differ \(fingerprints \w{12} and \w{12}\)"),
    ],
)
def test_runs_of_other_targets_are_not_paired(first, tmp_path, changes, why):
    found = compared(first, made(tmp_path, "other", **changes))
    assert re.search(why, found.unpaired)
    assert found.rows
    assert all(row.interval is None for row in found.rows)


def test_ranks_that_are_gone_or_of_another_run_are_said(first, swapped, tmp_path):
    gone = shutil.copytree(swapped, tmp_path / "gone")
    card = json.loads((gone / "run.json").read_text())
    card["config"]["store"] = str(tmp_path / "nowhere")
    (gone / "run.json").write_text(json.dumps(card))
    assert re.search("no longer in its store", compared(first, gone).unpaired)
    shutil.copyfile(first / "run.json", swapped / "run.json")
    why = r"ranks of \w+ in books that swapped names in its store do not give its figures"
    assert re.search(why, compared(first, swapped).unpaired)


def test_a_moved_folder_of_runs_is_still_paired(first, tmp_path):
    runs = shutil.copytree(first.parent, tmp_path / "runs")
    shutil.copytree(first.parents[1] / "store", runs / ".store")
    card = json.loads((runs / "first" / "run.json").read_text())
    card["config"]["store"] = str(tmp_path / "nowhere")
    (runs / "first" / "run.json").write_text(json.dumps(card))
    assert compared(first, runs / "first").unpaired is None


def test_comparing_prints_a_table_of_80_columns_and_writes_a_page(first, swapped):
    done = run_job(first, swapped, first)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    page = first.parent / "compare.html"
    assert lines[-1] == f"report: {page}"
    assert max(map(len, lines[:-1])) <= 80
    assert "\x1b" not in done.stdout
    figures = RunFiles.read(first).metrics["domains"]["books"]["models"]
    knn, popularity = (figures[model]["ndcg@10"] for model in ("item_knn", "popularity"))
    assert re.search(
        rf"books +Popularity +{popularity:.4f} +{knn:.4f} +[+-]0\.\d{{4}}", done.stdout
    )
    assert re.search(r"sasrec.dim +64 +48 +64", done.stdout)
    html = page.read_text()
    assert "swapped minus first" in html
    assert "first (2) minus first" in html
    assert "The same in both runs: Popularity and Item kNN." in html
    assert "sasrec.dim" in html


def test_mistakes_are_one_sentence(tmp_path):
    done = run_job(tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "holds no metrics.json" in done.stderr
    assert "runs/demo" in done.stderr


def test_help_names_every_option_and_its_default():
    done = run_job("--help")
    assert done.returncode == 0
    assert re.search(r"--out FILE.*default:\s+RUN/report.html", done.stdout, re.DOTALL)
    assert max(map(len, done.stdout.splitlines())) <= 80
