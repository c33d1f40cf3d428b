"""The tables of a transfer evaluation: their figures are those of metrics.json."""

import json
from pathlib import Path

import pytest

from pipeline.transfer_cells import command_of
from pipeline.transfer_page import section, write_page

COMMAND = "python jobs/evaluate_transfer.py --config configs/shops.yaml --seeds 0 1"


@pytest.fixture(scope="module")
def metrics(made_up_run):
    return made_up_run(seeds=2).metrics


def rows(text, first):
    """The rows of the table whose head begins with `first`, as cells."""
    lines = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_section_says_what_was_run(metrics):
    text = section("shops", metrics, {0: 4000.0, 1: 59.0}, COMMAND)
    assert "one after the other: 1:06:40 (seed 0), 0:59 (seed 1)" in text
    assert text.startswith("## Transfer: shops\n\n    " + COMMAND)
    assert "mean over seeds 0, 1" in text
    assert "seed 4;" in section("shops", metrics, {4: 60.0}, COMMAND)
    assert metrics["config_hash"][:12] in text


def test_negative_transfer_is_named(metrics):
    head, _, *found = rows(section("shops", metrics, {0: 4000.0, 1: 59.0}, COMMAND), "domain")
    by_domain = {row[0]: dict(zip(head, row, strict=True)) for row in found}
    for name, row in by_domain.items():
        delta = metrics["domains"][name]["deltas"]["hydra_joint"]
        assert row["difference"] == f"{delta['ndcg@10']:+.4f}"
        assert row["relative"] == f"{delta['relative']:+.1%}"
        assert row["p, Holm"] == f"{delta['p_holm']:.4f}"
        assert (row[""] == "negative transfer") == delta["negative_transfer"]
    # The made-up run is worse together in health (conftest).
    assert by_domain["health"][""] == "negative transfer"
    assert by_domain["books"][""] == ""


def test_buckets_have_their_users_and_no_empty_ones(metrics):
    head, _, *found = rows(
        section("shops", metrics, {0: 4000.0, 1: 59.0}, COMMAND), "domain | item"
    )
    assert head[:3] == ["domain", "item", "n"]
    [cold] = [row for row in found if row[:2] == ["books", "cold"]]
    bucket = metrics["domains"]["books"]["buckets"]["item"]["cold"]
    assert cold[2] == f"{bucket['users']:,}"
    assert cold[head.index("SASRec")] == f"{bucket['models']['sasrec']['ndcg@10']:.4f}"
    _, _, *histories = rows(
        section("shops", metrics, {0: 4000.0, 1: 59.0}, COMMAND), "domain | history"
    )
    assert {row[1] for row in histories} == {"1-5", "6-20"}


def test_the_page_and_the_metrics_are_written(metrics, tmp_path):
    page = write_page(tmp_path, "shops", metrics, {0: 4000.0, 1: 59.0}, COMMAND)
    assert page.read_text().count("## Transfer: shops") == 1
    assert json.loads((tmp_path / "results" / "transfer.shops.json").read_text()) == metrics
    before = page.read_bytes()
    write_page(tmp_path, "shops", metrics, {0: 4000.0, 1: 59.0}, COMMAND)
    assert page.read_bytes() == before


def test_the_command_of_the_page_names_its_overrides():
    command = command_of(Path("configs/shops.yaml"), [0, 1], ["--user-model.layers", "2"])
    assert command == f"{COMMAND} --user-model.layers 2"
