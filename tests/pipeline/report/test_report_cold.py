"""Cold curves: figures of metrics.json by the training events of the target, rare items first."""

import re

import pytest

from pipeline.model_names import label
from pipeline.report import render
from pipeline.report_cold import cold_curves


def ticks(chart: str) -> list[str]:
    """What stands below the axis, from left to right."""
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", chart)
    return [text for text in texts if re.fullmatch(r"\d+-\d+|\d+\+|0", text)]


@pytest.fixture
def metrics(made_up_run):
    return made_up_run().metrics


def test_a_chart_of_each_domain_from_new_items_to_common_ones(metrics):
    found = cold_curves(metrics)
    assert found[0].domain == "books"  # the largest first
    assert {curve.domain for curve in found} == set(metrics["domains"])
    # 6-10 has no users, so no place on the axis.
    assert ticks(found[0].chart) == ["0", "1-2", "51+"]
    books = metrics["domains"]["books"]
    assert found[0].users == books["evaluated_users"]
    assert [entry.label for entry in found[0].legend] == [
        label(name)
        for name in ["popularity", "sasrec", "hydra_single", "hydra_joint"]
        if name in books["models"]
    ]


def test_the_curves_pass_through_the_buckets_figures(metrics):
    chart = cold_curves(metrics)[0].chart
    buckets = metrics["domains"]["books"]["buckets"]["taken"]
    ends = [buckets[name]["models"]["hydra_joint"]["ndcg@10"] for name in ("0", "51+")]
    assert f"Hydra joint {ends[0]:.3f} to {ends[1]:.3f}" in chart


def test_too_few_users_draw_nothing(made_up_run):
    few = made_up_run(domains=("books",), users=50)  # 16 or 17 users a bucket
    assert cold_curves(few.metrics) == []
    assert "New and rare items" not in render(few)


def test_metrics_of_an_older_version_draw_nothing(metrics):
    for domain in metrics["domains"].values():
        del domain["buckets"]["taken"]
    assert cold_curves(metrics) == []
