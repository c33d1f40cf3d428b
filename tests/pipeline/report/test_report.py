import doctest
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline import report, report_findings, report_sections
from pipeline.report import render

SECTIONS = (
    "data",
    "results",
    "transfer",
    "item-llm",
    "training",
    "time",
    "settings",
    "versions",
)
NASTY = '<script>alert("x")</script>'
EVERY_MODEL = (
    *("popularity", "popularity_7d", "item_knn", "sasrec_bce", "sasrec", "hydra_ids"),
    *("hydra_frozen", "hydra_single", "hydra_joint", "oracle"),
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


@pytest.mark.parametrize("module", [report, report_findings, report_sections])
def test_worked_examples_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.fixture
def page(made_up_run) -> Page:
    return Page(render(**made_up_run(models=EVERY_MODEL)))


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
    html = render(**made_up_run(models=EVERY_MODEL))
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
    words = Page(render(**run)).words
    for domain in run["metrics"]["domains"].values():
        assert f"n = {domain['evaluated_users']:,} users" in words
        for figures in domain["models"].values():
            assert f"{figures['ndcg@10']:.4f}" in words
            assert f"{figures['hr@50']:.4f}" in words
    assert "▼ negative transfer" in words
    assert "▲ gain" in words
    assert run["metrics"]["config_hash"] in words
    assert "ab" * 32 in words


def test_texts_of_strangers_are_escaped(made_up_run):
    run = made_up_run(domains=("books", NASTY, "a $math^{} & b"), models=EVERY_MODEL)
    run["run"]["name"] = NASTY
    run["run"]["versions"] = {NASTY: NASTY}
    run["run"]["config"] = {"name": NASTY}
    run["curves"]["item_llm"]["base"] = NASTY
    run["data"]["domains"]["books"] |= {"source": NASTY, "rejected": {NASTY: 3}}
    run["data"]["split"]["kind"] = NASTY
    html = render(**run)
    assert "<script" not in html
    assert Page(html).words.count(NASTY) > 10
    assert "a $math^{} & b" in Page(html).words


def test_control_characters_cannot_break_a_chart(made_up_run):
    run = made_up_run(domains=("bad\x00\x1bname", "other"))
    assert "<svg" in render(**run)


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
    page = Page(render(**made_up_run(**variant)))
    assert set(SECTIONS) <= set(page.ids)


def test_absences_are_said(made_up_run):
    run = made_up_run(domains=("books",), models=("popularity",), item_llm=False)
    run["run"] |= {"cache": None, "git": None, "hardware": {}, "parameters": {}}
    run["data"] = {"domains": {}}
    words = Page(render(**run)).words
    assert "Not tuned in this run" in words
    assert "No user model was trained in this run" in words
    assert "Not measured in this run" in words
    assert "not run from a checkout" in words
    assert "nothing to compare it with" in words


def test_tuning_without_held_out_pairs_still_shows_the_adapter(made_up_run):
    run = made_up_run()
    run["curves"]["item_llm"] |= {
        "held_out": {"pairs": 0, "before": None, "after": None},
        "mean_cosine": None,
    }
    words = Page(render(**run)).words
    assert "Held-out pairs" not in words
    assert "ab" * 32 in words


def test_epochs_without_validation_are_left_out_of_the_curve(made_up_run):
    run = made_up_run(domains=("books",))
    for epoch in run["curves"]["user_models"]["sasrec"]["books"]:
        epoch["ndcg@10"] = None
    assert "svg" in render(**run)


def test_equal_inputs_give_equal_pages(made_up_run):
    assert render(**made_up_run()) == render(**made_up_run())


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
