"""benchmarks.objectives, static and snapshot_types: checks, and small runs on the real data."""

import json
import math

import pytest

from benchmarks import objectives, snapshot_types, static

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(pairs, histories):
    return [
        {"objective": objective, "ndcg@10 hydra": value}
        for objective, values in (("pairs", pairs), ("histories", histories))
        for value in values
    ]


@pytest.mark.parametrize(
    ("pairs", "histories", "ok"),
    [
        ([0.040, 0.041, 0.042], [0.041, 0.0405, 0.043], True),  # behind, and not told apart
        ([0.040, 0.041, 0.042], [0.045, 0.0461, 0.0472], False),  # behind in every seed
        ([0.050, 0.051, 0.052], [0.045, 0.0461, 0.0472], True),
        ([0.050], [0.045], False),  # one seed tells no spread
    ],
)
def test_the_default_may_not_be_the_worse_objective(pairs, histories, ok):
    assert objectives._default_is_not_the_worse(rows(pairs, histories)).ok is ok


def test_the_bound_is_students():
    check = objectives._default_is_not_the_worse(rows([0.01, 0.02, 0.03], [0.0, 0.0, 0.0]))
    assert check.value == pytest.approx(0.02 + 4.302653 * 0.01 / math.sqrt(3))


SMALL = ["--max-users", "250", "--held-out", "40", "--seeds", "0"]


@pytest.fixture
def _amazon(data_folder, monkeypatch):
    monkeypatch.setenv("HYDRAREC_DATA", str(data_folder))


@pytest.mark.slow
@pytest.mark.timed
@pytest.mark.usefixtures("_amazon")
def test_both_encoders_are_measured(capsys):
    static.main([*SMALL, "--timed-texts", "100"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["base"] for row in report["rows"]] == ["minilm", "static"]
    assert all(0.0 <= row["ndcg@10 hydra"] <= 1.0 and row["items/s"] > 0 for row in report["rows"])
    minilm, other = (row["ndcg@10 hydra"] for row in report["rows"])
    speed, quality = (check["value"] for check in report["checks"])
    assert speed > 1.0
    assert quality == pytest.approx(other / minilm)


@pytest.mark.slow
@pytest.mark.timed
@pytest.mark.usefixtures("_amazon")
def test_both_objectives_are_measured(capsys):
    objectives.main([*SMALL, "--steps", "3", "--pairs", "8"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["objective"] for row in report["rows"]] == ["untuned", "pairs", "histories"]
    untuned, *tuned = report["rows"]
    assert all(row["mrr"] != untuned["mrr"] and row["seconds"] > 0 for row in tuned)


@pytest.mark.slow
@pytest.mark.timed
@pytest.mark.usefixtures("_amazon")
def test_all_types_are_measured(capsys):
    snapshot_types.main(SMALL)
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    exact, half, whole = report["rows"]
    assert [row["dtype"] for row in report["rows"]] == ["float32", "float16", "int8"]
    assert half["bytes"] * 2 == exact["bytes"]
    assert exact["bytes"] / 4 < whole["bytes"] < exact["bytes"] / 3.9
    assert exact["ndcg@10 own model"] == exact["ndcg@10 float32's model"] > 0
    losses = [
        1 - row["ndcg@10 float32's model"] / exact["ndcg@10 own model"] for row in (half, whole)
    ]
    assert [check["value"] for check in report["checks"]] == pytest.approx(losses)
