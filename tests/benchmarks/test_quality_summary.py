"""Curves to figures, by hand: when a quality is reached, with what, and what the page says."""

import math
import xml.etree.ElementTree as ET

import pytest

from benchmarks.quality_chart import chart
from benchmarks.quality_page import Race, publish, section
from benchmarks.quality_summary import checks, reached, row, targets
from benchmarks.quality_table import table
from pipeline.whole_files import read_json


def record(name, non_embedding, ndcg, seconds_an_epoch, state="schedule ended"):
    """A cell whose CPU time is half of its seconds."""
    curve = [
        {
            "epoch": number,
            "ndcg@10": value,
            "seconds": number * seconds_an_epoch,
            "cpu_seconds": number * seconds_an_epoch / 2,
        }
        for number, value in enumerate(ndcg, start=1)
    ]
    best = max(curve, key=lambda point: point["ndcg@10"], default={"epoch": 0, "ndcg@10": 0.0})
    return {
        "name": name,
        "kind": name.partition(":")[0],
        "parameters": {"total": non_embedding + 1000, "non_embedding": non_embedding},
        "config": {"dim": 8, "training": {"epochs": 4, "loss": "bce", "negatives": 512}},
        "config_hash": "0123456789abcdef",
        "state": state,
        "best": {"epoch": best["epoch"], "ndcg@10": best["ndcg@10"], "test_ndcg@10": 0.01},
        "curve": curve,
        "seed": 0,
        "threads": 1,
        "hardware": {"cores": 2, "machine": "x86_64"},
        "data": {
            "name": "tiny",
            "users": 3,
            "items": 4,
            "interactions": 12,
            "split": {"max_history": 50},
        },
    }


BCE = record("sasrec_bce", 1000, [0.10, 0.20, 0.195, 0.18], 10.0)
STRONG = record("sasrec_ss", 600, [0.15, 0.30, 0.40, 0.38], 8.0)
TOO_WEAK = record("hydra:dim=8", 50, [0.05, 0.10, 0.15, 0.19], 1.0)
SMALL = record("hydra:dim=16", 100, [0.15, 0.19, 0.25, 0.26], 0.5)
LARGE = record("hydra:dim=64", 900, [0.20, 0.30, 0.41, 0.42], 4.0)
RACE = [BCE, STRONG, TOO_WEAK, SMALL, LARGE]


def test_a_quality_is_reached_at_the_first_epoch_that_has_it():
    assert reached(BCE, 0.2)["epoch"] == 2
    assert reached(BCE, 0.1)["epoch"] == 1
    assert reached(BCE, 0.21) is None
    dips = record("hydra", 1, [0.3, 0.1, 0.4], 1.0)
    assert reached(dips, 0.2)["epoch"] == 1


def test_an_epoch_that_was_not_validated_reaches_nothing():
    gaps = record("sasrec_bce", 1000, [0.1, 0.2], 10.0)
    gaps["curve"].insert(0, {"epoch": 0, "ndcg@10": None, "seconds": 1.0, "cpu_seconds": 1.0})
    assert reached(gaps, 0.05)["epoch"] == 1
    assert row(gaps, targets([gaps]))["sasrec_bce_seconds"] == 20.0
    assert "sasrec_bce" in chart([gaps, SMALL], "tiny")
    gaps["curve"] = gaps["curve"][:1]
    assert targets([gaps]) == []


def test_targets_are_each_sasrecs_own_best():
    assert [(t.name, t.ndcg) for t in targets(RACE)] == [
        ("sasrec_bce", 0.2),
        ("sasrec_bce_95%", pytest.approx(0.19)),
        ("sasrec_ss", 0.4),
    ]
    assert targets([SMALL, record("sasrec_bce", 1000, [], 1.0)]) == []


def test_a_row_has_seconds_and_shares_of_what_the_reference_needed():
    figures = row(SMALL, targets(RACE))
    # BCE's best .2 at its epoch 2, 20 s; SMALL has .25 at epoch 3, 1.5 s.
    assert figures["sasrec_bce_seconds"] == 1.5
    assert figures["sasrec_bce_cpu_seconds"] == 0.75
    assert figures["sasrec_bce_seconds_share"] == pytest.approx(0.075)
    # 95% of it, .19: BCE at epoch 2, SMALL at epoch 2, 1 s.
    assert figures["sasrec_bce_95%_seconds_share"] == pytest.approx(0.05)
    assert figures["sasrec_ss_seconds"] is None
    assert figures["sasrec_ss_seconds_share"] is None
    assert (figures["parameters"], figures["non_embedding"]) == (1100, 100)
    assert row(BCE, targets(RACE))["sasrec_bce_seconds_share"] == 1.0


def test_bars_hold_the_smallest_that_reaches_it_and_the_fastest_that_is_small():
    size, time, strong = checks(RACE)
    assert (size.value, size.bar, size.ok) == (0.1, 0.11, True)  # SMALL: TOO_WEAK never reaches it
    assert (time.value, time.ok) == (pytest.approx(0.075), False)  # SMALL: LARGE is too large
    assert (strong.value, strong.ok) == (0.5, True)  # LARGE: 12 s of 24


def test_bars_count_the_clock_that_was_asked_for():
    slow = record("hydra:dim=16", 100, [0.15, 0.19, 0.25, 0.26], 0.5)
    slow["curve"] = [{**p, "cpu_seconds": p["seconds"] / 4} for p in slow["curve"]]
    _, time = checks([BCE, slow])
    _, cpu = checks([BCE, slow], "cpu_seconds")
    assert (time.value, cpu.value) == (pytest.approx(0.075), pytest.approx(0.0375))
    assert "of them: CPU seconds / SASRec BCE's" in cpu.name


def test_text_has_a_bar_of_its_own():
    text = record("hydra_text:dim=16", 120, [0.35, 0.41, 0.42, 0.42], 4.0)
    _, _, ids, with_text = checks([*RACE, text])
    assert (ids.value, ids.bar) == (0.5, 1.0)
    # 8 s of 24.
    assert (with_text.value, with_text.bar, with_text.ok) == (pytest.approx(1 / 3), 0.4, True)
    text["texts"] = {"base": "minilm", "texts": 12, "seconds": 3.04, "cpu_seconds": 2.96}
    told = "minilm, not tuned: 12 distinct texts, encoded once in 3.0 s (3.0 s of CPU time)"
    race = Race([*RACE, text], [row(BCE, targets(RACE))], [], "x")
    assert told in section(race)
    assert race.name == "time_to_quality_tiny_minilm"


def test_what_no_hydra_reaches_meets_no_bar():
    size, time, strong = checks([BCE, STRONG, TOO_WEAK])
    assert all(math.isnan(check.value) and not check.ok for check in (size, time, strong))
    size, time, _ = checks([BCE, STRONG, LARGE])
    assert (size.value, size.ok) == (0.9, False)
    assert math.isnan(time.value)


def test_without_a_sasrec_or_a_hydra_there_is_nothing_to_compare():
    assert checks([SMALL]) == []
    assert checks([BCE, STRONG]) == []
    assert len(checks([BCE, SMALL])) == 2


def test_the_table_dashes_what_was_not_reached():
    rows = [row(r, targets(RACE)) for r in RACE]
    lines = table(rows, "seconds")
    assert len(lines) == 2 + len(RACE)
    assert lines[0].count("|") == lines[2].count("|")
    small = [cell.strip() for cell in lines[5].strip("|").split("|")]
    assert small == [
        "`hydra:dim=16`", "1,100", "100 (10.0%)", "4 of 4", "0.50", "0.2600 (4)", "0.0100",
        "1.5 (7.5%)", "1.0 (5.0%)", "-",
    ]  # fmt: skip
    cpu = table(rows, "cpu_seconds")
    assert "| CPU s to sasrec bce 95% (share) |" in cpu[0]
    assert "| 0.25 |" in cpu[5]
    assert "| 0.8 (7.5%) |" in cpu[5]


def test_a_section_names_what_did_not_end_and_which_bar_was_missed():
    records = [record("sasrec_bce", 1000, [0.1, 0.2], 10.0, state="training"), SMALL]
    rows = [row(r, targets(records)) for r in records]
    text = section(Race(records, rows, checks(records), "python -m benchmarks.time_to_quality"))
    assert "Not trained to their end: `sasrec_bce` (2 of 4 epochs)." in text
    assert "non-embedding parameters / its: **0.1**, met (bar 0.11)" in text
    assert "seconds / SASRec BCE's: **0.075**, missed (bar 0.07)" in text
    weak = [BCE, STRONG, TOO_WEAK]
    rows = [row(r, targets(weak)) for r in weak]
    assert text.count("not reached") == 0
    assert section(Race(weak, rows, checks(weak), "x")).count("**not reached**") == 3
    rows = [row(r, targets(RACE)) for r in RACE]
    assert "Not trained to their end" not in section(Race(RACE, rows, [], "x"))
    bce = "* `sasrec_bce`: dim 8; loss bce, epochs 4, negatives 1; config 0123456789ab"
    assert bce in text.splitlines()
    assert "of CPU time" in section(Race(RACE, rows, [], "x", "cpu_seconds"))


def test_it_is_published_twice_alike(tmp_path):
    rows = [row(r, targets(RACE)) for r in RACE]
    both = []
    for _ in range(2):
        publish(tmp_path, Race(RACE, rows, checks(RACE), "the command"))
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        both.append({path.name: path.read_bytes() for path in written})
    files = both[0]
    assert both[1] == files
    assert sorted(files) == ["results.md", "time_to_quality_tiny.json", "time_to_quality_tiny.svg"]
    kept = read_json(tmp_path / "results" / "time_to_quality_tiny.json")
    assert kept["command"] == "the command"
    assert kept["cells"] == RACE
    assert "](results/time_to_quality_tiny.svg)" in files["results.md"].decode()


def test_the_chart_names_every_model_once_for_both_panels():
    root = ET.fromstring(chart(RACE, "tiny"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert all(texts.count(r["name"]) == 1 for r in RACE)
    assert "tiny" in texts
