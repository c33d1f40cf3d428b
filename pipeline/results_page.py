"""docs/results.md: a page of generated sections, each between two comments that carry its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.whole_files import write_text

HEAD = "# Results\n\nEvery section is made by the command that it names.\n"


def put_section(page: Path, name: str, text: str) -> None:
    """Put a section into a page, in the place of the one of this name, or at the page's end.

    All else on the page stays as it is; a page that is not there begins with HEAD.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before = page.read_text(encoding="utf-8") if page.is_file() else HEAD
    section = f"{begin}\n{text.strip()}\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if pattern.search(before):
        write_text(page, pattern.sub(lambda _: section, before))
    else:
        write_text(page, f"{before.rstrip()}\n\n{section}\n")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without a line's end; cells may hold Markdown of their own.

    >>> print(markdown_table(["domain", "n"], [["books", "**8**"]]))
    | domain | n |
    |---|---|
    | books | **8** |
    """
    lines = [_row(head), "|---" * len(head) + "|", *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
