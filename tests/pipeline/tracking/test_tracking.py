"""tracking.jsonl and all trackers together, as a run uses them."""

import json
import math
import time
from pathlib import Path

import pytest

from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.jsonl import TRACKING, read_records
from pipeline.tracking.records import Figures, Record, TrackedRun, flattened
from pipeline.tracking.registry import External
from pipeline.tracking.tracking import Tracking


@pytest.fixture
def run(tmp_path):
    return TrackedRun("shop", tmp_path / "run", {"seed": "7"})


@pytest.fixture
def odd(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return lambda kind: External(kind.lower(), f"odd_trackers:{kind}", "json")


def lines(run):
    return [json.loads(line) for line in (run.folder / TRACKING).read_text().splitlines()]


def test_the_file_has_parameters_records_and_the_end(run):
    with Tracking(TrackingConfig(), [], pytest.fail).following(run) as tracking:
        tracking.log("train.sasrec", Figures({"loss": 2.5, "odd": math.nan}, 10, 1))
        tracking.describe({"adapter": "abc"})
    start, log, end = lines(run)
    assert (start["event"], start["name"], start["parameters"]) == ("start", "shop", {"seed": "7"})
    assert (log["stage"], log["step"], log["epoch"]) == ("train.sasrec", 10, 1)
    assert log["values"] == {"loss": 2.5, "odd": None}
    assert (end["status"], end["parameters"], end["trackers"]) == (
        "finished",
        {"adapter": "abc"},
        {},
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("x"), "failed"),
        (RuntimeError("x"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_the_end_says_how_the_run_ended_and_the_error_passes(run, error, status):
    with (
        pytest.raises(type(error)),
        Tracking(TrackingConfig(), [], pytest.fail).following(run),
    ):
        raise error
    assert lines(run)[-1]["status"] == status


def test_a_resumed_run_adds_to_the_file_and_a_torn_line_goes(run):
    for step in (1, 2):
        with Tracking(TrackingConfig(), [], pytest.fail).following(run) as tracking:
            tracking.log("item_llm", Figures({"loss": 1.0}, step))
        with (run.folder / TRACKING).open("a") as stream:
            stream.write('{"event": "log", "sta')
    with Tracking(TrackingConfig(), [], pytest.fail).following(run):
        pass
    assert [record.figures.step for record in read_records(run.folder / TRACKING)] == [1, 2]


def test_a_long_file_makes_room_and_one_before_it_is_kept(run):
    run.folder.mkdir()
    line = json.dumps({"event": "end", "padding": "x" * 1000}) + "\n"
    for attempt in (1, 2):
        with (run.folder / TRACKING).open("a") as stream:
            stream.write(line * 9000)
        with Tracking(TrackingConfig(), [], pytest.fail).following(run):
            pass
        assert [entry["event"] for entry in lines(run)] == ["start", "end"], attempt
    assert sum(path.stat().st_size for path in run.folder.iterdir()) < 10_000_000


def test_a_damaged_line_is_named(run):
    run.folder.mkdir()
    (run.folder / TRACKING).write_text('{"event": "end"}\nnonsense\n')
    with pytest.raises(ValueError, match=r"tracking.jsonl:2 is no line"):
        read_records(run.folder / TRACKING)


def test_a_curve_is_completed_by_the_steps_that_were_not_logged(run):
    with Tracking(TrackingConfig(), [], pytest.fail).following(run) as tracking:
        tracking.log("train", Figures({"loss": 9.0}, 3))
        tracking.complete("train", [Figures({"loss": float(step)}, step) for step in (1, 2, 3)])
    logged = [record.figures for record in read_records(run.folder / TRACKING)]
    assert [(figures.step, figures.values["loss"]) for figures in logged] == [
        (3, 9),
        (1, 1),
        (2, 2),
    ]


def test_trackers_that_fail_or_hang_cost_no_more_than_their_time(run, odd):
    said = []
    externals = [odd("Good"), odd("Raising"), odd("Blocking"), odd("Crashing")]
    config = TrackingConfig(finish_seconds=8)
    with Tracking(config, externals, said.append).following(run) as tracking:
        started = time.monotonic()
        for step in range(1, 1001):
            tracking.log("train", Figures({"loss": 1.0}, step))
        assert time.monotonic() - started < 5
        ending = time.monotonic()
    assert time.monotonic() - ending < 8 + 4
    end = lines(run)[-1]
    assert end["status"] == "finished"
    assert len(read_records(run.folder / TRACKING)) == 1000
    assert end["trackers"]["good"]["lost"] == end["trackers"]["good"]["failed"] == 0
    assert end["trackers"]["raising"]["failed"] == 1002
    assert end["trackers"]["blocking"]["ended"]
    assert end["trackers"]["crashing"]["lost"] > 0
    assert sorted(text.split(":")[0] for text in said) == [
        f"tracking by {name}" for name in ("blocking", "crashing", "raising")
    ]


def test_a_file_that_cannot_be_written_is_said_once(run):
    (run.folder / TRACKING).mkdir(parents=True)
    said = []
    with Tracking(TrackingConfig(), [], said.append).following(run) as tracking:
        tracking.log("train", Figures({"loss": 1.0}, 1))
    assert len(said) == 1
    assert "tracking.jsonl cannot be written" in said[0]


def test_a_record_comes_back_as_it_was():
    record = Record("train.x", Figures({"loss": 0.25, "by_domain/a/ndcg@10": 0.5}, 3, 1), 12.5)
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert record.named() == {"train.x/loss": 0.25, "train.x/by_domain/a/ndcg_at_10": 0.5}


def test_parameters_are_flat():
    content = {"a": {"b": 1, "c": None}, "d": [{"e": "x"}, {"e": "y"}], "f": [1, 2]}
    assert flattened(content) == {
        "a.b": "1",
        "a.c": "None",
        "d.0.e": "x",
        "d.1.e": "y",
        "f": "[1, 2]",
    }
