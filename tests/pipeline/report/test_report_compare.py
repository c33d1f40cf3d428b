"""The page that compares runs, as readers see it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.report_compare import render, sentence
from pipeline.report_files import RunFiles
from pipeline.run_comparison import Run, RunComparison, RunDifference
from pipeline.statistics import Interval

NASTY = "<script>alert(1)</script>"
GAIN, LOSS, LEVEL, SAME = (0.01, 0.03), (-0.03, -0.01), (-0.01, 0.01), (0.0, 0.0)


@pytest.fixture
def two_runs(made_up_run) -> Callable[..., tuple[Run, Run]]:
    """two_runs(name): a run, and another with other settings."""

    def build(name: str = "other") -> tuple[Run, Run]:
        files = made_up_run(domains=("books", "toys", "games"))
        second = replace(files, run=json.loads(json.dumps(files.run)))
        files.run["config"] = {"user_model": {"dim": 64, "items": {"ids": True}}, "seed": 0}
        second.run["config"] = {"user_model": {"dim": 32, "items": {"ids": True}}, NASTY: NASTY}
        second.run["versions"]["torch"] = NASTY
        return Run("demo", Path("demo"), files), Run(name, Path(name), second)

    return build


def comparison(runs: tuple[Run, Run], *intervals, unpaired: str | None = None) -> RunComparison:
    rows = [
        RunDifference(
            model,
            place,
            False,
            *figures(runs, place, model, sum(bounds) / 2),
            interval=None if unpaired else Interval(*bounds),
        )
        for place, bounds in zip(("books", "toys", "games"), intervals, strict=True)
        for model in ("popularity", "hydra_joint")
    ]
    return RunComparison(*runs, rows, unpaired)


def figures(runs: tuple[Run, Run], place: str, model: str, difference: float):
    first: RunFiles = runs[0].files
    value = first.metrics["domains"][place]["models"][model]["ndcg@10"]
    return value, value + (difference if model == "hydra_joint" else 0.0)


@pytest.mark.parametrize(
    ("intervals", "words"),
    [
        ((GAIN, GAIN, LOSS), "better in 2 of 3 and worse in 1 of 3 domains."),
        ((LEVEL, LEVEL, (-0.01, 0.02)), "no clear difference in 3 of 3 domains."),
    ],
)
def test_the_headline_counts_gains_and_losses(two_runs, intervals, words):
    found = sentence(comparison(two_runs(), *intervals))
    assert found == f"Hydra joint of other against demo: {words}"


def test_the_headline_of_runs_that_score_the_same_or_cannot_be_paired(two_runs):
    runs = two_runs()
    assert sentence(comparison(runs, SAME, SAME, SAME)).endswith("score the same in every domain.")
    found = sentence(comparison(runs, GAIN, LOSS, LOSS, unpaired="their data differ"))
    assert found.endswith("higher in 1 of 3 domains, but without intervals.")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("unpaired", [None, "their data differ"])
def test_the_page_fits_and_shows_what_differs(two_runs, browser, tmp_path, width, unpaired):
    runs = two_runs(name="a-name-as-long-as-people-give-to-runs-that-they-keep")
    html = render(runs, [comparison(runs, GAIN, LOSS, LEVEL, unpaired=unpaired)])
    assert "<script" not in html
    path = tmp_path / "compare.html"
    path.write_text(html, encoding="utf-8")
    browser.open(path, width)
    assert browser.ask("document.documentElement.scrollWidth") <= browser.ask("innerWidth") == width
    assert browser.requests == [path.as_uri()]
    text = browser.ask("document.querySelector('main').textContent")
    for words in ("user_model.dim", "64", "32", "versions.torch", NASTY, "+0.0200"):
        assert words in text
    assert "user_model.items.ids" not in text
    assert ("Without intervals, since their data differ." in text) == (unpaired is not None)
    assert ("▲ gain" in text) == ("+0.0100 to +0.0300" in text) == (unpaired is None)
    assert "The same in both runs: Popularity." in text
    figures = browser.ask("[...document.querySelectorAll('[data-figure]')].length")
    assert figures == 3 * 2, "of each domain the figure in both runs"
