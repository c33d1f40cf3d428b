"""The page as a real browser lays it out, colours and prints it. Skipped without a Chromium."""

import io
import re
from collections.abc import Iterator
from typing import Any

import pypdf
import pytest
from chromium import CONTRASTS, installed
from chromium import main as take_pictures

from pipeline.report import render

SECTIONS = ["results", "transfer", "examples", "data", "item-llm", "training", "time", "run"]
A4 = (595, 842)  # points
CROWDED = ("W" * 64, "<script>1</script>", *(f"domain number {i}" for i in range(10)))
MODELS = ("popularity", "sasrec", "M" * 40, "hydra_single", "hydra_joint", "oracle")
CASES = {
    "usual": {},
    "crowded": {"domains": CROWDED, "models": MODELS},
    "seeds": {"domains": ("books", "toys"), "seeds": 3},
    "bare": {"domains": ("books",), "models": ("popularity",), "item_llm": False},
}

TOO_WIDE = """
[...document.querySelectorAll("body *")].filter(e =>
  e.getBoundingClientRect().right > innerWidth + 0.5 && !e.closest(".scroll, pre, svg, .hidden"))
  .map(e => e.outerHTML.slice(0, 80))
"""
FIGURES = """
[...document.querySelectorAll("[data-figure]")].map(e =>
  [e.dataset.figure, e.dataset.over || "", e.dataset.kind, e.textContent.trim()])
"""
# Numbers with 4 decimals that are no figure of metrics.json's by their mark, nor of an axis.
UNMARKED = r"""
["header.top dl", "#results", "#transfer"].map(place => {
  const copy = document.querySelector(place).cloneNode(true);
  copy.querySelectorAll("[data-figure], pre.copy, svg.chart text").forEach(e => e.remove());
  return copy.textContent.match(/\d\.\d{4}/g) || [];
}).flat()
"""
BARS = """
[...document.querySelectorAll("#results table.bars")].map(table =>
  [...table.querySelectorAll("svg[data-bar]")].map(svg =>
    [svg.dataset.bar, svg.querySelector("rect").getBoundingClientRect().width]))
"""


@pytest.fixture(scope="module")
def pages(made_up_run, tmp_path_factory) -> dict[str, Any]:
    """By case: the page's path, and the run's files."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, case in CASES.items():
        files = made_up_run(**case)
        path = folder / f"{name}.html"
        path.write_text(render(files), encoding="utf-8")
        found[name] = (path, files)
    return found


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("case", CASES)
def test_the_page_fits_its_window(pages, browser, width, case):
    path, _ = pages[case]
    browser.open(path, width)
    assert browser.ask("innerWidth") == width
    assert browser.ask(TOO_WIDE) == []
    assert browser.ask("document.documentElement.scrollWidth") <= width
    shown = "[...document.querySelectorAll('section')].filter(e => e.clientHeight > 60)"
    assert browser.ask(f"{shown}.map(e => e.id)") == SECTIONS
    if case != "bare":
        texts = "[...document.querySelectorAll('main svg.chart text')]"
        heights = browser.ask(f"{texts}.map(e => e.getBoundingClientRect().height)")
        assert min(heights) >= 9, "text of charts must stay readable"


def test_nothing_is_asked_of_the_network_and_nothing_runs(pages, browser):
    path, _ = pages["crowded"]
    browser.open(path, 1280)
    assert browser.requests == [path.as_uri()]
    assert browser.complaints == []
    assert browser.ask("document.querySelectorAll('script').length") == 0


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number below a JSON value, by its pointer."""
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in entries:
            escaped = str(key).replace("~", "~0").replace("/", "~1")
            yield from leaves(entry, f"{path}/{escaped}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def number(text: str) -> float:
    return float(text.replace("\u2212", "-").replace(",", "").rstrip("%\u00d7"))


@pytest.mark.parametrize("case", CASES)
def test_every_figure_is_that_of_metrics_json_and_none_is_left_out(pages, browser, case):
    path, files = pages[case]
    browser.open(path, 1280)
    source = dict(leaves(files.metrics))
    steps = {"plain": 1e-4, "signed": 1e-4, "count": 1, "share": 1, "change": 0.1, "times": 0.1}
    shown = set()
    for pointer, over, kind, text in browser.ask(FIGURES):
        value = source[pointer] / (source[over] if over else 1)
        value *= 100 if kind in ("share", "change") else 1
        assert number(text) == pytest.approx(value, abs=0.5001 * steps[kind]), (pointer, text)
        shown.add(pointer)
    wanted = {
        pointer
        for pointer in source
        if re.match(r"/(domains|groups|group_deltas|group_comparisons)/", pointer)
        # Of a single domain, the groups are the domain again.
        and (len(files.metrics["domains"]) > 1 or pointer.startswith("/domains/"))
        and not group_of_one(files.metrics, pointer)
    }
    assert wanted - shown == set()
    assert browser.ask(UNMARKED) == []


def group_of_one(metrics: dict[str, Any], pointer: str) -> bool:
    """A group of one domain has no difference of its own in the plot."""
    groups = [domain["size_group"] for domain in metrics["domains"].values()]
    return any(
        pointer.startswith((f"/group_deltas/{group}/", f"/group_comparisons/{group}/"))
        for group in ("large", "small")
        if groups.count(group) == 1
    )


def test_numbers_of_the_headline_are_those_of_metrics_json(made_up_run, browser, tmp_path):
    files = made_up_run(models=("popularity", "sasrec"))
    path = tmp_path / "page.html"
    path.write_text(render(files), encoding="utf-8")
    browser.open(path, 390)
    [value, ratio] = re.findall(r"\d+\.\d+", browser.ask("document.querySelector('h1').innerText"))
    models = files.metrics["groups"]["all"]
    best, floor = (models[model]["ndcg@10"] for model in ("sasrec", "popularity"))
    assert (value, ratio) == (f"{best:.4f}", f"{best / floor:.1f}")


@pytest.mark.parametrize("width", [1280, 390])
def test_bars_are_as_long_as_their_figures(pages, browser, width):
    path, files = pages["usual"]
    browser.open(path, width)
    source = dict(leaves(files.metrics))
    panels = browser.ask(BARS)
    assert len(panels) == 8
    for panel in panels:
        scales = [drawn / source[pointer] for pointer, drawn in panel]
        assert max(scales) == pytest.approx(min(scales), rel=0.02)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("column", [".plot:not(.memory)", ".plot.memory"], ids=["time", "memory"])
def test_the_longest_stage_fills_its_column(pages, browser, width, column):
    path, _ = pages["usual"]
    browser.open(path, width)
    widths = browser.ask(
        f"[...document.querySelectorAll('#time .stages td{column} rect')]"
        ".map(e => e.getBoundingClientRect().width)"
    )
    assert max(widths) > 90
    assert min(widths) < 0.6 * max(widths)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_that_wcag_asks_for(pages, browser, scheme):
    path, _ = pages["usual"]
    browser.open(path, 1280, scheme=scheme)
    browser.ask("document.querySelectorAll('details').forEach(e => { e.open = true })")
    [red, *_] = re.findall(r"\d+", browser.ask("getComputedStyle(document.body).backgroundColor"))
    assert (int(red) > 200) == (scheme == "light")
    assert browser.ask(CONTRASTS) == []


def test_readers_of_screens_are_told_what_charts_show(pages, browser):
    path, _ = pages["usual"]
    browser.open(path, 1280)
    nodes = [
        node for node in browser.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]
    ]
    names = {node["role"]["value"]: [] for node in nodes}
    for node in nodes:
        names[node["role"]["value"]].append(node.get("name", {}).get("value", ""))
    assert len(names["image"]) > 40
    assert all(names["image"])
    assert {"banner", "navigation", "main", "contentinfo", "rowheader", "columnheader"} <= set(
        names
    )
    assert all(names["rowheader"])
    assert all(names["columnheader"])


@pytest.mark.parametrize("case", CASES)
def test_it_prints_on_pages_that_can_be_read(pages, browser, case):
    path, _ = pages[case]
    browser.open(path, 1280, scheme="dark")
    pdf = pypdf.PdfReader(io.BytesIO(browser.printed()))
    texts = [page.extract_text() for page in pdf.pages]
    assert 2 <= len(texts) <= {"bare": 5, "seeds": 10, "usual": 14, "crowded": 45}[case]
    for page in pdf.pages:
        size = (float(page.mediabox.width), float(page.mediabox.height))
        assert size == pytest.approx(A4, abs=1.5)
    assert all(len(text.split()) > 30 for text in texts[:-1]), "no page stands nearly empty"
    headings = browser.ask("[...document.querySelectorAll('h2')].map(e => e.innerText)")
    for heading in headings:
        assert any(heading in text for text in texts)
        assert not any(text.rstrip().endswith(heading) for text in texts), "alone at a page's end"
    if case == "usual":
        assert "".join(texts).count("Taken next") == 10, "what is folded on the screen is printed"
        assert "Sections" not in "".join(texts)


@pytest.mark.skipif(installed() is None, reason="needs a browser")
def test_pictures_for_the_documentation_are_taken(pages, tmp_path):
    path, _ = pages["usual"]
    take_pictures(path, tmp_path)
    names = sorted(picture.name for picture in tmp_path.iterdir())
    assert names == [f"usual-{name}.png" for name in ("1280", "390", "examples", "neighbours")]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in tmp_path.iterdir())
