"""The fields of the config, written into pages from the classes that read it.

`<!-- fields -->` becomes every section of a run's config; `<!-- fields MODULE.CLASS -->` becomes
the fields of one class. So what a page says of a field is what the program says of it in --help.
A field that a page names whole, such as `user_model.training.lr`, is linked to the reference.
"""

from __future__ import annotations

import html
import importlib
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from pipeline.config import RunConfig
from pipeline.config_fields import ConfigField, Section, sections
from pipeline.config_help import domain_sections

_MARK = re.compile(r"^<!-- fields(?: (\S+))? -->$", re.M)
_CODE = re.compile(r"<code>([a-z0-9_]+(?:\.[a-z0-9_]+)+)((?:: [^<]*)?)</code>(?!</a>)")
_REFERENCE = "configuration.html"
_FORMAT = re.compile(r"a source with format: (\w+)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put fields where a page asks for them."""
    return _MARK.sub(lambda mark: _of_class(mark[1]) if mark[1] else reference(), markdown)


def on_page_content(content: str, page: Page, **_: Any) -> str:
    """Link the fields that a page names to what the reference says of them."""
    if page.url == _REFERENCE:
        return content
    reference_url = get_relative_url(_REFERENCE, page.url)

    def linked(code: re.Match[str]) -> str:
        if code[1] not in _places():
            return code[0]
        return f'<a href="{reference_url}#{code[1]}">{code[0]}</a>'

    return _CODE.sub(linked, content)


@cache
def _places() -> frozenset[str]:
    """The ids of the run's fields and sections."""
    found = tuple(sections(RunConfig))
    fields = {field.path for section in found for field in section.fields}
    return frozenset(fields | {section.path for section in found} - {""})


def reference() -> str:
    """Every section of a run's config as Markdown: those of the run, then those of a domain."""
    seen: dict[tuple[Any, ...], str] = {}
    parts = [_section(section, seen) for section in sections(RunConfig)]
    parts += [_section(section, seen) for section in domain_sections()]
    return "\n\n".join(parts)


def anchor(section: Section, field: ConfigField | None = None) -> str:
    """The id of a section or of a field; sources of several formats have fields of one path."""
    source = _FORMAT.match(section.description)
    place = f"{section.path}.{source[1]}" if source else section.path or "run"
    if field is None:
        return place
    return f"{place}.{_name(field)}" if source else field.path


def _section(section: Section, seen: dict[tuple[Any, ...], str]) -> str:
    place = anchor(section)
    title = f"## `{section.path}`" if section.path else "## The run"
    source = _FORMAT.match(section.description)
    if source:
        title = f"## `{section.path}`, format `{source[1]}`"
    same = tuple((_name(f), f.kind, f.default, f.description) for f in section.fields)
    text = f"{title} {{ #{place} }}\n\n{_sentence(section.description)}"
    fields = _list(section.fields, lambda field: anchor(section, field))
    if len(same) > 1 and same in seen:
        summary = f"the fields and defaults of <code>{seen[same]}</code>"
        return f"{text}\n\n<details><summary>{summary}</summary>\n{fields}\n</details>"
    seen[same] = place
    return f"{text}\n\n{fields}"


def _of_class(name: str) -> str:
    """The own fields of a config class, such as user_model.HydraConfig."""
    module, _, attribute = name.rpartition(".")
    own = next(sections(getattr(importlib.import_module(module), attribute)))
    return _list(own.fields, None)


def _list(fields: tuple[ConfigField, ...], place: Callable[[ConfigField], str] | None) -> str:
    entries = "\n".join(_entry(field, place and place(field)) for field in fields)
    return f'<dl class="fields">\n{entries}\n</dl>'


def _entry(field: ConfigField, place: str | None) -> str:
    mark = f' id="{html.escape(place)}"' if place else ""
    value = f"default <code>{html.escape(field.default)}</code>" if field.default else "required"
    if field.default == "":
        value = "default: empty"
    kind = "" if field.kind == "null" else f'<span class="kind">{html.escape(field.kind)}</span> '
    about = _sentence(html.escape(field.description))
    return (
        f"<dt{mark}><code>{html.escape(_name(field))}</code> {kind}"
        f'<span class="default">{value}</span></dt><dd>{about}</dd>'
    )


def _name(field: ConfigField) -> str:
    return field.path.rpartition(".")[2]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""
