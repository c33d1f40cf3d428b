"""Whole runs that are followed: the same metrics.json, in time, whatever the trackers do."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import run as module
from pipeline.config import RunConfig
from pipeline.progress import Progress
from pipeline.tracking.jsonl import TRACKING, read_records
from pipeline.tracking.registry import External

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
FINISH_SECONDS = 3.0


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("followed")
    rows = [f"u{u},i{(u * 3 + k) % 11},{1000 + k}\n" for u in range(40) for k in range(5)]
    (folder / "events.csv").write_text("user_id,item_id,timestamp\n" + "".join(rows))
    source = {"format": "table", "interactions": str(folder / "events.csv")}
    training = {"epochs": 3, "negatives": 8}
    return RunConfig.model_validate(
        {
            "store": str(folder / "store"),
            "domains": [{"name": "shop", "source": source}],
            "models": ["popularity", "sasrec"],
            "sasrec": {"dim": 8, "training": training},
            "tracking": {"finish_seconds": FINISH_SECONDS},
        }
    )


def execute(config, folder):
    """metrics.json, what was printed, and the seconds of a run."""
    console = Console(file=io.StringIO(), width=80)
    started = time.monotonic()
    outcome = module.execute(config, folder, Progress(console))
    seconds = time.monotonic() - started
    return outcome.folder.metrics.read_bytes(), console.file.getvalue(), seconds


@pytest.fixture(scope="module")
def plain(config, ray_session, tmp_path_factory):
    return execute(config, tmp_path_factory.mktemp("plain"))


def test_what_a_run_measures_is_in_its_file(config, plain, tmp_path):
    execute(
        config, tmp_path / "again"
    )  # all stages are reused: their curves are there all the same
    records = read_records(tmp_path / "again" / TRACKING)
    training = [r.figures for r in records if r.stage == "train.sasrec.shop" and r.figures.step]
    assert [figures.epoch for figures in training] == [1, 2, 3]
    assert all({"loss", "ndcg@10"} <= set(figures.values) for figures in training)
    times = {r.stage for r in records if "run_seconds" in r.figures.values}
    assert {"corpus", "train.sasrec.shop", "rank.sasrec.shop", "metrics"} <= times
    assert "shop/sasrec/ndcg@10" in records[-1].figures.values


def test_a_fresh_run_has_each_epoch_once_with_its_domains(config, ray_session, tmp_path):
    fresh = config.model_copy(update={"store": str(tmp_path / "store")})
    execute(fresh, tmp_path / "run")
    records = read_records(tmp_path / "run" / TRACKING)
    training = [r.figures for r in records if r.stage == "train.sasrec.shop" and r.figures.step]
    assert [figures.epoch for figures in training] == [1, 2, 3]
    for figures in training:
        assert figures.values["by_domain/shop/ndcg@10"] == figures.values["ndcg@10"]


@pytest.mark.parametrize("kind", ["Raising", "Blocking"])
def test_a_tracker_that_fails_or_hangs_changes_nothing(kind, config, plain, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    external = External(kind.lower(), f"odd_trackers:{kind}", "json")
    monkeypatch.setattr(module, "wanted", lambda _: [external])
    fresh = config.model_copy(update={"store": str(tmp_path / "store")})
    metrics, printed, seconds = execute(fresh, tmp_path / "run")
    expected, quiet, usual = plain
    assert metrics == expected
    assert seconds < usual + FINISH_SECONDS + 20  # 20 s: what two runs differ by on a busy machine
    assert printed.count(f"tracking by {kind.lower()}") == 1
    assert "tracking by" not in quiet
    assert max(map(len, printed.splitlines())) <= 80
