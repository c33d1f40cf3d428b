"""Links, anchors and images: in the pages as they stand in a checkout, and on the built site."""

import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from page_parts import PAGES, ROOT, inline_code, is_slow, node_exists, tokens

# What stands on the site alone: the fields of the config, and the docstrings.
_MADE = re.compile(r"configuration\.md#|configuration\.html#")
# A file or folder of the repository within the text; capitals stand for what a reader puts there.
_FILE = re.compile(
    r"(configs|cluster|jobs|tests|docs|pipeline|item_llm|user_model|benchmarks)/[a-z0-9_./*-]*"
)

INVENTED = {"pipeline/sources/formats/tally.py"}  # CONTRIBUTING.md shows how to write it


def links(page: str) -> Iterator[str]:
    """Targets of links and images, also of HTML."""
    for token in tokens(page):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target:
                yield str(target)
            if child.type == "html_inline":
                yield from re.findall(r'(?:href|src)="([^"]+)"', child.content)
        if token.type == "html_block":
            yield from re.findall(r'(?:href|src)="([^"]+)"', token.content)


@cache
def anchors(page: str) -> set[str]:
    """The anchors that a repository's page gives its headings."""
    found: set[str] = set()
    inside = False
    for token in tokens(page):
        if inside and token.type == "inline":
            text = "".join(child.content for child in token.children or ())
            found.add(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
        inside = token.type == "heading_open"
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_checkout_lead_somewhere(page):
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ("http", "https", "mailto"), link
            assert parts.netloc or parts.path, link
            continue
        target = (ROOT / page).parent / unquote(parts.path) if parts.path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert target.resolve().is_relative_to(ROOT), f"{page}: {link}"
        if parts.fragment and not _MADE.search(link):
            where = str(target.resolve().relative_to(ROOT))
            assert parts.fragment in anchors(where), f"{page}: {link}"


class _Page(HTMLParser):
    """The ids of a built page, and what it points to."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (name == "id" or (name == "name" and tag == "a")):
                self.ids.add(value)
            if value and name in ("href", "src"):
                self.targets.append(value)


@cache
def parsed(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_links_of_the_site_lead_somewhere(site):
    broken = []
    for path in site.pages():
        for link in parsed(path).targets:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            there = target.is_file() and target.is_relative_to(site.folder.resolve())
            fragment = unquote(parts.fragment)
            if there and fragment and target.suffix == ".html" and fragment != "__top":
                there = fragment in parsed(target).ids
            if not there:
                broken.append(f"{path.relative_to(site.folder)}: {link}")
    assert broken == []
    assert sum(len(parsed(path).targets) for path in site.pages()) > 1000


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page):
    for line, code in inline_code(page):
        if _FILE.fullmatch(code) and code not in INVENTED:
            assert list(ROOT.glob(code.rstrip("/"))), f"{page}:{line}: there is no {code}"


@pytest.mark.parametrize("page", PAGES)
def test_tests_that_a_page_names_exist(page):
    for line, code in inline_code(page):
        if re.fullmatch(r"tests/\S+\.py::\w+", code):
            assert node_exists(code), f"{page}:{line}: {code}"
            if page == "docs/reliability.md":
                assert not is_slow(code), f"{page}: `make test` does not run {code}"


def test_every_promise_names_its_test_and_every_fault_its_file():
    text = (ROOT / "docs" / "reliability.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| test |" not in line]
    faults = [row for row in rows if row.count(" | ") == 6 or " | | " in row]
    promises = [row for row in rows if row not in faults]
    assert (len(promises) > 30, len(faults) > 10) == (True, True)
    assert [row for row in promises if not re.search(r"`tests/\S+::\w+` \|$", row)] == []
    assert [row for row in faults if not re.search(r"`tests/\S+\.py` \|$", row)] == []
