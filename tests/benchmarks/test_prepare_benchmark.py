"""benchmarks.prepare compares equals, measures what it says, and its report is whole."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import prepare
from benchmarks.atomic_files import movielens_1m, small_dataset
from benchmarks.json_worker import JsonWorker
from pipeline.sources.registry import read_source


def run(capsys, *arguments):
    """Run quickly: the exit status and the JSON."""
    status = prepare.main(["--quick", "--repetitions", "1", *arguments])
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_growth_is_measured_in_fresh_processes_after_equality(capsys):
    status, report = run(capsys, "--only", "growth")
    checks = {check["name"]: check for check in report["checks"]}
    assert list(checks) == [
        "one part and many differ (0: no)",
        "peak MiB at 8,000",
        "|log-log slope of CPU time - 1|",
    ]
    assert checks["one part and many differ (0: no)"]["ok"]
    assert 100 < checks["peak MiB at 8,000"]["value"] < 1000
    assert status == int(not all(check["ok"] for check in checks.values()))
    small, large = (row for row in report["rows"] if row["section"] == "growth")
    assert (small["size"], large["size"]) == (4_000, 8_000)
    for row in (small, large):
        assert row["size"] * 0.9 < row["read"] < row["size"] * 1.1
        assert row["prepare_s"] == pytest.approx(row["seconds"] - row["source_seconds"])
        assert 0 < row["source_cpu_seconds"] < row["cpu_seconds"]


def test_both_count_the_same_of_atomic_files(capsys):
    if not prepare.RECBOLE.exists():
        pytest.skip(f"needs {prepare.RECBOLE} (make peers)")
    _, report = run(capsys, "--only", "recbole")
    same, faster = report["checks"]
    assert (same["name"], same["value"]) == ("counts that differ from RecBole's", 0)
    assert faster["name"] == "RecBole's time / ours"
    assert [row["rival"] for row in report["rows"]] == ["ours", "recbole"]


def test_without_recbole_the_race_is_left_out_and_said_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(prepare, "RECBOLE", tmp_path / "absent")
    status, report = run(capsys, "--only", "recbole")
    assert (status, report["checks"]) == (0, [])
    assert report["rows"] == [{"section": "recbole", "left_out": [str(tmp_path / "absent")]}]


def test_atomic_files_are_read_as_they_were_written(tmp_path):
    name = small_dataset(tmp_path)
    source = prepare.DomainConfig.model_validate(
        {"name": name, "source": {"format": "recbole", "path": f"{name}/{name}.inter"}}
    ).source
    whole = read_source(source, tmp_path).whole()
    assert whole.interactions.row(0) == ("u0", "i0", 1_000_000)
    assert (whole.interactions.height, whole.items.height) == (1_055, 20)
    assert whole.rejected == ()


@pytest.mark.data
def test_movielens_has_all_its_interactions(data_folder, tmp_path):
    name = movielens_1m(tmp_path)
    with (tmp_path / name / f"{name}.inter").open() as stream:
        assert sum(1 for _ in stream) == 1 + 999_611


@pytest.mark.parametrize(("text", "count"), [("10M", 10_000_000), ("500k", 500_000), ("7", 7)])
def test_sizes_are_read(text, count):
    assert prepare._count(text) == count


def test_a_worker_that_ends_is_named(capfd):
    with pytest.raises(RuntimeError, match=r"json\.tool .* ended with"):
        JsonWorker("json.tool", ["absent.json"], python=Path(sys.executable)).__enter__()
    assert "absent.json" in capfd.readouterr().err
