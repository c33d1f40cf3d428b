"""The pages of the project as their readers have them: commands, blocks, links, words in code."""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
# Written by jobs and benchmarks, whose commands stand in blocks that are indented.
GENERATED = {"docs/results.md"}
GENERATED |= {str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "studies").glob("*.md")}
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "cluster").glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
PROGRAM = re.compile(r"(?:[A-Z_]+=\S+ )*(python|make|ray|pytest|pip|docker|kubectl|mkdocs)\b ")
_ENVIRONMENT = re.compile(r"([A-Z_]+)=(\S*) ")
_SUBMIT = re.compile(r"ray job submit (?:--address \S+ )?--working-dir \S+ -- ")


@dataclass(frozen=True)
class Block:
    """A block of code: its language ("" where it is indented), what follows it, its text."""

    page: str
    line: int
    language: str
    options: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command as it stands in a page."""

    page: str
    line: int
    text: str
    environment: dict[str, str] = field(hash=False)
    submitted: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.text}"

    @property
    def words(self) -> list[str]:
        """The words without comments, redirections and the last `&`."""
        words = shlex.split(self.text, comments=True)
        if ">" in words:
            words = words[: words.index(">")]
        return [word for word in words if word != "&"]

    @property
    def output(self) -> str | None:
        """The file that the output goes to."""
        words = shlex.split(self.text, comments=True)
        return words[words.index(">") + 1] if ">" in words else None


@cache
def tokens(page: str) -> list[Token]:
    """The page as CommonMark with tables."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return MarkdownIt("commonmark").enable("table").parse(text)


def blocks(page: str) -> Iterator[Block]:
    """Every block of code."""
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            language, _, options = token.info.strip().partition(" ")
            line = (token.map or [0])[0] + 1
            yield Block(page, line, language, options, token.content)


def inline_code(page: str) -> Iterator[tuple[int, str]]:
    """Every piece of code within a line of text, and the line of its paragraph."""
    for token in tokens(page):
        for child in token.children or ():
            if child.type == "code_inline":
                yield (token.map or [0])[0] + 1, child.content


def commands(page: str) -> Iterator[Command]:
    """Every command of a page: in blocks of sh or console, and within the text."""
    for block in blocks(page):
        for number, line in enumerate(_lines(block)):
            for part in line.split(" && "):
                yield _command(page, block.line + 1 + number, part)
    for line_number, code in inline_code(page):
        if PROGRAM.match(f"{code} ") and " " in code and "|" not in code:
            yield _command(page, line_number, code)


def _lines(block: Block) -> Iterator[str]:
    for line in block.text.splitlines():
        text = line.strip()
        if block.language == "console":
            text = text.removeprefix("$ ") if text.startswith("$ ") else ""
        if block.language in ("sh", "console"):
            found = bool(text) and not text.startswith("#")
        else:
            found = block.language == "" and bool(PROGRAM.match(f"{text} "))
        if found:
            yield text


def _command(page: str, line: int, text: str) -> Command:
    environment = {}
    while found := _ENVIRONMENT.match(text):
        environment[found[1]] = found[2]
        text = text[found.end() :]
    inner = _SUBMIT.sub("", text)
    if inner.startswith("jobs/"):  # the script itself is the entrypoint
        inner = f"python {inner}"
    return Command(page, line, inner.strip(), environment, inner != text)


@cache
def _tests_of(path: str) -> dict[str, bool]:
    """The test functions of a file, and whether each is slow."""
    file = ROOT / path
    tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])
    return {
        node.name: any(ast.unparse(mark) == "pytest.mark.slow" for mark in node.decorator_list)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def node_exists(node: str) -> bool:
    """Whether `tests/FILE.py::test_name` is a test of the project."""
    path, _, name = node.partition("::")
    return name in _tests_of(path)


def is_slow(node: str) -> bool:
    """Whether the whole test is left to `make test-slow`."""
    path, _, name = node.partition("::")
    return _tests_of(path)[name]
