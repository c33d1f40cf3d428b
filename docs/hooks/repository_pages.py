"""Pages that stand elsewhere in the repository, and links that work on the site as in a checkout.

README.md, CHANGELOG.md, CONTRIBUTING.md and cluster/README.md are pages of the site, and a file of
the repository that a page links to becomes a page that shows it. Links in the sources are those of
the checkout, relative to the file that they stand in, so they work there too.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# Files of the repository that are pages: by their place on the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "cluster/README.md": "cluster.md",
}
_LANGUAGES = {".yml": "yaml", ".yaml": "yaml", ".py": "python", ".json": "json", ".toml": "toml"}
_FENCED = re.compile(r"^(```+).*?^\1 *$", re.M | re.S)
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_TITLE = re.compile(r"^# (.+)$", re.M)
_EXTERNAL = re.compile(r"[a-z]+:")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand elsewhere, and those of files that pages link to."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    shown = {path for file in files.documentation_pages() for path in _shown_by(file)}
    for path in sorted(shown):
        text = _listing(path)
        page = File.generated(
            config, _site_uri(path), content=text, inclusion=InclusionLevel.NOT_IN_NAV
        )
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(_repository_path(here))

    def on_site(link: re.Match[str]) -> str:
        words, target, fragment = link.groups()
        path = _inside(folder, target)
        if path is None:
            return link[0]
        if words == target and path.endswith(".md"):  # a file's name says nothing on the site
            words = _title(path)
        found = posixpath.relpath(_site_uri(path), posixpath.dirname(here) or ".")
        return f"[{words}]({found}{fragment or ''})"

    return _outside_fences(markdown, lambda text: _LINK.sub(on_site, text))


def _shown_by(file: File) -> Iterator[str]:
    """Files of the repository, outside of docs/, that a page links to and that are no pages."""
    folder = posixpath.dirname(_repository_path(file.src_uri))
    for link in _LINK.finditer(_FENCED.sub("", file.content_string)):
        path = _inside(folder, link[2])
        if path and path not in PAGES and not path.startswith("docs/") and (ROOT / path).is_file():
            yield path


def _inside(folder: str, target: str) -> str | None:
    """The path in the repository that a link leads to; None: it leads elsewhere."""
    if _EXTERNAL.match(target) or target.startswith("/"):
        return None
    path = posixpath.normpath(posixpath.join(folder, target))
    return None if path.startswith("..") else path


def _repository_path(uri: str) -> str:
    """Where a page of the site stands in the repository."""
    return next((path for path, page in PAGES.items() if page == uri), f"docs/{uri}")


def _site_uri(path: str) -> str:
    """Where a file of the repository stands on the site."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}.md"


def _title(path: str) -> str:
    """The heading of a page of the repository."""
    file = ROOT / path
    found = _TITLE.search(file.read_text(encoding="utf-8")) if file.is_file() else None
    return found[1] if found else path


def _listing(path: str) -> str:
    """A page that shows a file; the search leaves it out."""
    text = (ROOT / path).read_text(encoding="utf-8").rstrip()
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text) or ("",)))
    language = _LANGUAGES.get(Path(path).suffix, "text")
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n{fence}{language}\n{text}\n{fence}\n"


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for fenced in _FENCED.finditer(markdown):
        parts += [change(markdown[end : fenced.start()]), fenced[0]]
        end = fenced.end()
    return "".join([*parts, change(markdown[end:])])
