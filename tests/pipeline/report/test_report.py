import doctest
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline import (
    config_differences,
    report,
    report_differences,
    report_examples,
    report_formats,
    report_results,
)
from pipeline.report import render
from pipeline.report_choices import choice_lines

SECTIONS = (
    "results",
    "transfer",
    "examples",
    "data",
    "item-llm",
    "training",
    "time",
    "run",
)
NASTY = '<script>alert("x")</script>'
EVERY_MODEL = (
    *("popularity", "popularity_7d", "item_knn", "sasrec_bce", "sasrec", "mamba2rec"),
    *("hstu", "hstu_time", "hydra_ids", "hydra_frozen", "hydra_single", "hydra_joint", "oracle"),
)
_VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page, with a check that every tag is closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    @property
    def ids(self) -> list[str]:
        return [attrs["id"] for _, attrs in self.elements if "id" in attrs]


@pytest.mark.parametrize(
    "module",
    [report_formats, report_results, report_differences, report_examples, config_differences],
)
def test_worked_examples_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.fixture(scope="module")
def page(made_up_run) -> Page:
    return Page(render(made_up_run(models=EVERY_MODEL)))


def test_every_section_is_there_and_linked(page):
    for section in SECTIONS:
        assert section in page.ids
        assert {"href": f"#{section}"} in [attrs for tag, attrs in page.elements if tag == "a"]


def test_ids_are_unique_and_every_reference_resolves(page):
    assert len(page.ids) == len(set(page.ids))
    for _, attrs in page.elements:
        for key, value in attrs.items():
            for target in re.findall(r"url\(#([^)]+)\)", value):
                assert target in page.ids
            if key in ("href", "xlink:href", "aria-labelledby"):
                assert value.lstrip("#") in page.ids


def test_the_page_stands_alone(made_up_run):
    html = render(made_up_run(models=EVERY_MODEL))
    page = Page(html)
    assert "://" not in html
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in page.elements}
    assert not re.search(r"@import|@font-face|url\((?!#)", html)
    assert not any(key.startswith("on") for _, attrs in page.elements for key in attrs)


def test_every_chart_is_described_for_those_who_cannot_see_it(page):
    charts = [attrs for tag, attrs in page.elements if tag == "svg"]
    assert len(charts) > 20
    for attrs in charts:
        described = attrs.get("aria-label") or attrs.get("aria-labelledby")
        assert described or attrs.get("aria-hidden") == "true"


def test_figures_of_metrics_stand_in_the_page(made_up_run):
    run = made_up_run()
    words = Page(render(run)).words
    for domain in run.metrics["domains"].values():
        assert f"n = {domain['evaluated_users']:,} users" in words
        for figures in domain["models"].values():
            assert f"{figures['ndcg@10']:.4f}" in words
            assert f"{figures['hr@50']:.4f}" in words
    assert "▼ negative transfer" in words
    assert "▲ gain" in words
    assert run.metrics["config_hash"] in words
    assert "ab" * 32 in words


def test_texts_of_strangers_are_escaped(made_up_run):
    run = made_up_run(domains=("books", NASTY, "a $math^{} & b"), models=EVERY_MODEL)
    run.run["name"] = NASTY
    run.run["versions"] = {NASTY: NASTY}
    run.run["config"] = {"name": NASTY}
    run.curves["item_llm"]["base"] = NASTY
    refused = {"file": NASTY, "line": 1, "reason": NASTY, "row": NASTY}
    run.data["domains"]["books"] |= {"source": NASTY, "rejected": {NASTY: 3}, NASTY: 4}
    run.data["domains"]["books"]["first_refused"] = [refused]
    run.data["split"]["kind"] = NASTY
    for user in run.examples["users"]["users"]:
        user["target"]["text"] = user["history"][0]["text"] = user["top"][0]["text"] = NASTY
        user["history"][1]["domain"] = NASTY
        user["top"][1] |= {"text": "", "item": NASTY}
    for item in run.examples["neighbours"]["items"]:
        item["text"] = item["before"][0]["text"] = item["after"][0]["text"] = NASTY
    html = render(run)
    assert "<script" not in html
    assert Page(html).words.count(NASTY) > 50
    assert "a $math^{} & b" in Page(html).words


def test_control_characters_cannot_break_a_chart(made_up_run):
    run = made_up_run(domains=("bad\x00\x1bname", "other"))
    assert "<svg" in render(run)


@pytest.mark.parametrize(
    "variant",
    [
        {"domains": ("books",), "models": ("popularity",), "item_llm": False},
        {"domains": ("books",), "models": ("hydra_single", "hydra_joint")},
        {"domains": tuple(f"domain {i} " + "long " * i for i in range(12))},
        {"models": ("popularity", "somebody_elses_model")},
        {"models": ("oracle",)},
    ],
)
def test_absent_parts_leave_every_section_with_words(made_up_run, variant):
    page = Page(render(made_up_run(**variant)))
    assert set(SECTIONS) <= set(page.ids)


def test_absences_are_said(made_up_run):
    run = made_up_run(domains=("books",), models=("popularity",), item_llm=False)
    run.run.update({"cache": None, "git": None, "hardware": {}, "parameters": {}})
    words = Page(render(replace(run, data={"domains": {}}, examples=None))).words
    assert "Not tuned in this run" in words
    assert "No user model was trained in this run" in words
    assert "Not measured in this run" in words
    assert "not run from a checkout" in words
    assert "nothing to compare it with" in words
    assert "made by a version that kept no examples" in words


def test_a_run_of_an_older_version_says_what_it_lacks(made_up_run):
    words = Page(render(replace(made_up_run(), examples=None))).words
    assert "made by a version that kept no examples" in words
    assert "made by a version that did not compare them" in words


def test_examples_show_histories_recommendations_and_hits(made_up_run):
    run = made_up_run()
    page = Page(render(run))
    assert page.words.count("Taken next") == 10
    assert page.words.count("✓ taken next") == 5
    assert page.words.count("✓ hit: rank 3") == 5
    assert page.words.count("missed: rank 14") == 5
    assert "For 5 of them" in page.words
    assert "(8 of 23)" in page.words
    assert "books-7" in page.words, "an item without text stands by its id"
    rate = run.metrics["groups"]["all"]["hydra_joint"]["hr@10"]
    assert f"over all users it is {rate:.0%}" in page.words


def test_neighbours_that_tuning_brought_are_marked(made_up_run):
    page = Page(render(made_up_run()))
    marks = [attrs for _, attrs in page.elements if attrs.get("class") == "tag new"]
    assert len(marks) == 3 * 2, "of 4 .. 8 against 2 .. 6 two are new"
    assert "among 99 of 419 others" in page.words


def test_counts_that_the_report_does_not_know_are_shown_too(made_up_run):
    words = Page(render(made_up_run())).words
    assert "A count of tomorrow" in words
    assert "Refused in books: 7" in words
    assert "5 × 3 fields; 2 × the time is not a number" in words
    assert "events.csv:23" in words
    assert "u1,i1,soon" in words
    assert "0 in every domain: duplicates removed." in words


def test_headings_go_down_step_by_step_and_every_header_cell_has_a_scope(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    scopes = [attrs.get("scope") for tag, attrs in page.elements if tag == "th"]
    assert set(scopes) == {"row", "col"}


def test_tuning_without_held_out_pairs_still_shows_the_adapter(made_up_run):
    run = made_up_run()
    run.curves["item_llm"] |= {
        "held_out": {"pairs": 0, "before": None, "after": None},
        "mean_cosine": None,
    }
    words = Page(render(run)).words
    assert "Held-out pairs" not in words
    assert "ab" * 32 in words


def test_epochs_without_validation_are_left_out_of_the_curve(made_up_run):
    run = made_up_run(domains=("books",))
    for epoch in run.curves["user_models"]["sasrec"]["books"]:
        epoch["ndcg@10"] = None
    assert "svg" in render(run)


def test_every_candidate_stands_with_its_figure_and_the_chosen_one_bold(made_up_run):
    run = made_up_run(domains=("books", "games"), models=EVERY_MODEL)
    html = render(run)
    assert "<b>dropout=0.5: 0.1742</b>" in html
    words = Page(html).words
    assert "Settings chosen on validation" in words
    assert "Hydra joint all domains dropout=0.3: 0.1912 · dropout=0.5: 0.1804" in words
    assert "SASRec games dropout=0.3: 0.1581 · dropout=0.5: 0.1502" in words
    del run.run["choices"]
    assert "Settings chosen on validation" not in render(run)


def test_the_terminal_names_what_was_chosen_in_80_columns(made_up_run):
    choices = made_up_run().run["choices"]
    choices["hydra_single"] = {
        f"a_long_name_of_a_shop_{n}": choices["sasrec"]["games"] for n in "abc"
    }
    lines = choice_lines(choices)
    assert max(map(len, lines)) <= 80
    text = " ".join(line.strip() for line in lines)
    assert "SASRec: dropout=0.5 (books); dropout=0.3 (games)" in text
    assert "Hydra joint: dropout=0.3 (all)" in text
    assert choice_lines({}) == []


def test_equal_inputs_give_equal_pages(made_up_run):
    assert render(made_up_run()) == render(made_up_run())


def relative_luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_the_contrast_that_wcag_asks_for_in_light_and_dark():
    css = (Path(report.__file__).parent / "report.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)
    )
    for theme in (light, dark):
        for ground in ("paper", "card"):
            for text in ("ink", "muted", "joint", "gain", "loss"):
                pair = [relative_luminance(theme[name]) + 0.05 for name in (ground, text)]
                assert max(pair) / min(pair) >= 4.5, (ground, text)
