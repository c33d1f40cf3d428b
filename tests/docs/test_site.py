"""The built site: no warning, every field and every public name on it, readable, on its own."""

import importlib
import re

import pytest
from page_parts import ROOT

from pipeline.config import RunConfig
from pipeline.config_fields import sections
from pipeline.config_help import domain_sections

WIDTHS = (390, 1280)
TOO_WIDE = """
[...document.querySelectorAll("article *, header *")].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width && box.right > innerWidth + 0.5 && !e.closest(
    ".md-typeset__scrollwrap, pre, .md-search, .headerlink, [hidden]");
}).map(e => e.outerHTML.slice(0, 90))
"""
SEARCH = """
(() => {
  const field = document.querySelector(".md-search__input");
  field.focus();
  field.value = WORD;
  field.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}));
})()
"""
FOUND = "[...document.querySelectorAll('.md-search-result__link')].map(e => e.href)"


def test_the_site_builds_without_a_warning(site):
    assert "WARNING" not in site.output, site.output
    assert "ERROR" not in site.output, site.output
    recipe = re.search(r"^docs:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert "-m mkdocs build" in recipe[1], "`make docs` builds it in the same way"


def test_every_field_of_the_config_is_on_its_page_with_its_default(site):
    text = (site.folder / "configuration.html").read_text().replace("<wbr>", "")
    entries = dict(re.findall(r'<dt id="([^"]+)">(.*?)</dd>', text, re.S))
    for section in sections(RunConfig):
        for field in section.fields:
            assert field.path in entries, f"{field.path} is not on the page"
            if field.default and not re.search("[<>&\"']", field.default):
                assert f"<code>{field.default}</code>" in entries[field.path]
    for section in domain_sections():
        for field in section.fields:
            name = field.path.rpartition(".")[2]
            assert f"<code>{name}</code>" in text, field.path


@pytest.mark.parametrize(
    ("page", "package"),
    [("item_llm", "item_llm"), ("user_model", "user_model"), ("ops", "user_model.ops")],
)
def test_every_public_name_is_in_the_reference(site, page, package):
    text = (site.folder / "api" / f"{page}.html").read_text()
    missing = [
        name
        for name in importlib.import_module(package).__all__
        if f'id="{package}.{name}"' not in text
    ]
    assert missing == [], f"add `::: {package}.NAME` to docs/api/{page}.md"


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_their_window_and_ask_nothing_of_the_network(site, browser, width):
    for page in site.pages():
        if "files" in page.relative_to(site.folder).parts:
            continue
        browser.open(page, width)
        where = f"{page.relative_to(site.folder)} at {width}"
        assert browser.ask("document.documentElement.scrollWidth") <= width, where
        assert browser.ask(TOO_WIDE) == [], where
        outside = [url for url in browser.requests if not url.startswith(("file:", "data:"))]
        assert outside == [], where
        assert browser.complaints == [], where


def test_the_search_finds_a_word_from_disk(site, browser):
    browser.open(site.folder / "index.html", 1280)
    browser.ask(SEARCH.replace("WORD", "'quarantine'"))
    found = browser.until(FOUND)
    assert any(link.split("?")[0].endswith("/data.html") for link in found), found
    assert [url for url in browser.requests if url.startswith("http")] == []


@pytest.mark.parametrize(("scheme", "dark"), [("dark", True), ("light", False)])
def test_dark_readers_get_a_dark_page(site, browser, scheme, dark):
    browser.open(site.folder / "404.html", 390)
    browser.ask("localStorage.clear()")  # where an earlier choice is kept
    browser.open(site.folder / "index.html", 390, scheme=scheme)
    ground = "getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number)"
    sum_of_colours = f"{ground}.slice(0, 3).reduce((sum, colour) => sum + colour)"
    browser.until(f"({sum_of_colours} < 3 * 128) === {str(dark).lower()}")
