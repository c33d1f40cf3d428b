"""A run whose places are addresses: plans, results, and a user's mistakes."""

import subprocess
import sys
from contextlib import nullcontext

import pytest

from pipeline.config import RunConfig
from pipeline.paths import project_root
from pipeline.plan import make_plan
from pipeline.plan_text import plan_text
from pipeline.progress import Progress
from pipeline.run import RunFolder, execute, prepared
from pipeline.storage.bucket import Bucket
from pipeline.storage.mirror import mirror_of
from pipeline.storage.results_copy import put_results
from pipeline.storage.stores import open_store

SHOP = {"format": "simulated", "population": 100, "items": 30, "mean_history": 6}


def config_of(store):
    source = SHOP | {"catalogue": "books", "share": 0.8}
    domains = [{"name": "books", "source": source}]
    return RunConfig.model_validate(
        {"name": "shop", "store": store, "models": ["popularity"], "domains": domains}
    )


def test_a_plan_reads_another_machines_store_and_writes_nothing(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRAREC_CACHE", str(tmp_path / "a"))
    corpus = prepared(config_of(bucket), Progress())
    assert corpus.is_relative_to(tmp_path / "a")
    there = Bucket(bucket).sizes("")
    monkeypatch.setenv("HYDRAREC_CACHE", str(tmp_path / "b"))
    plan = make_plan(config_of(bucket), f"{bucket}/results")
    text = plan_text(plan)
    assert f"store    {bucket}\n" in text
    assert f"results  {bucket}/results\n" in text
    assert "1 reused, 0 resumed, 3 made" in text
    assert plan.sources[0].counts["items"] == 30
    assert not (tmp_path / "b").exists()
    assert Bucket(bucket).sizes("") == there


def test_a_whole_run_leaves_its_results_at_the_address(bucket, tmp_path, monkeypatch):
    # No Ray: all stages of this run are the driver's own.
    monkeypatch.setattr("pipeline.run.connected", lambda compute: nullcontext())
    results = {}
    for machine in ("a", "b"):
        monkeypatch.setenv("HYDRAREC_CACHE", str(tmp_path / machine))
        outcome = execute(config_of(bucket), f"{bucket}/results/{machine}", Progress())
        results[machine] = {stage.status for stage in outcome.stages.values()}
        assert outcome.folder.report == f"{bucket}/results/{machine}/report.html"
    assert results == {"a": {"ran"}, "b": {"reused"}}
    there = Bucket(f"{bucket}/results")
    names = {"metrics.json", "run.json", "curves.json", "data.json", "examples.json"}
    assert {f"a/{n}" for n in names | {"report.html", "tracking.jsonl"}} <= set(there.sizes("a/"))
    assert there.read("a/metrics.json").data == there.read("b/metrics.json").data


def test_results_keep_their_names_and_their_sign_goes_last(bucket, tmp_path):
    folder = tmp_path / "results"
    (folder / "tracking").mkdir(parents=True)
    for name in ("metrics.json", "report.html", "tracking/x.log", ".lock"):
        (folder / name).write_text(name)
    uploaded, objects = [], Bucket(bucket)
    upload = objects.upload
    objects.upload = lambda key, *rest: (uploaded.append(key), upload(key, *rest))
    put_results(folder, objects, last="metrics.json")
    assert uploaded[-1] == "metrics.json"
    assert set(objects.sizes("")) == {"metrics.json", "report.html", "tracking/x.log"}
    assert objects.read("report.html").data == b"report.html"


def test_a_folder_is_the_projects_and_an_address_has_a_mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRAREC_CACHE", str(tmp_path))
    assert open_store("runs/.store").root == project_root() / "runs" / ".store"
    assert open_store("s3://b/p/").address == "s3://b/p"
    assert open_store("s3://b/p/").root == mirror_of("s3://b/p")
    assert mirror_of("s3://b/p").parent == tmp_path / "stores"
    assert mirror_of("s3://b/p") != mirror_of("s3://b-p") != mirror_of("s3://b/p/q")
    assert RunFolder.at("s3://b/r").report == "s3://b/r/report.html"
    assert RunFolder.at(tmp_path / "r").report == f"{tmp_path}/r/report.html"


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ("s3://no-such-bucket/x", "error: s3://no-such-bucket/x: there is no bucket"),
        ("gs://bucket/x", "error: gs://bucket/x: expected a folder or s3://BUCKET/PREFIX"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_sentence(bucket, tmp_path, store, told):
    config = tmp_path / "shop.yaml"
    config.write_text(config_of(store).model_dump_json())
    done = subprocess.run(
        [sys.executable, "-m", "jobs.multidomain", "--config", str(config), "--plan"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1
