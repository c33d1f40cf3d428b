"""What every benchmark reports: bars, turns, and the JSON line."""

import json
import math

import pytest
import torch

from benchmarks.harness import Check, Timing, alternate, finish, median_ratio, rms_ratio


@pytest.mark.parametrize(
    ("value", "at", "ok"),
    [
        (9.0, "least", True),
        (8.9, "least", False),
        (9.0, "most", True),
        (9.1, "most", False),
        (math.nan, "least", False),
        (math.nan, "most", False),
    ],
)
def test_a_check_holds_its_figure_to_the_bar(value, at, ok):
    assert Check("figure", value, 9.0, at).ok is ok


@pytest.mark.parametrize(("value", "status"), [(10.0, 0), (8.0, 1)])
def test_the_last_line_is_json_and_the_status_tells(value, status, capsys):
    check = Check("ours against theirs", value, 9.0, "least")
    assert finish("scan", [check], [{"length": 50, "ms": 1.5}]) == status
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "benchmark": "scan",
        "threads": torch.get_num_threads(),
        "checks": [
            {
                "name": "ours against theirs",
                "value": value,
                "bar": 9.0,
                "at": "least",
                "ok": status == 0,
            }
        ],
        "rows": [{"length": 50, "ms": 1.5}],
    }


def test_rivals_take_turns_and_the_warm_up_is_not_counted():
    turns = []
    seconds = alternate(
        {name: lambda name=name: turns.append(name) for name in "ab"}, repetitions=3, warmup=2
    )
    assert turns == list("ab" * 5)
    assert {name: len(runs) for name, runs in seconds.items()} == {"a": 3, "b": 3}


def test_figures_by_hand():
    assert Timing.of([3.0, 1.0, 2.0, 9.0, 2.5]) == Timing(2.5, 1.0, 9.0)
    assert median_ratio([4.0, 9.0, 8.0], [2.0, 3.0, 1.0]) == 3.0  # of 2, 3 and 8
    assert rms_ratio(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
