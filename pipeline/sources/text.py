"""Item texts as people would read them: no markup, one kind of space, one form of each letter."""

from __future__ import annotations

import html
import re
import sys
import unicodedata
from functools import cache

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_UNSEEN_FROM = re.compile(r"<(script|style)\b[^<>]*>|<!--", re.I)
_UNSEEN_TO = {
    "script": re.compile(r"</script\s*>", re.I),
    "style": re.compile(r"</style\s*>", re.I),
    None: re.compile("-->"),
}
_INLINE = re.compile(r"</?(?:a|b|big|em|font|i|small|span|strong|sub|sup|u)\b[^<>]*>", re.I)
# A letter must follow, so that `3 < 5 > 2` and `<3` stay.
_TAG = re.compile(r"</?[a-zA-Z!][^<>]*>")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff]")
# Markup that was escaped or nested more often than this is no markup but an attempt to keep us
# busy: each pass takes time for the whole text.
_MOST_PASSES = 8
_LONG_TEXT = 4000
_MARKUP_CHARS = str.maketrans("<>&", "   ")


def normalise_text(text: str) -> str:
    """Decode HTML entities, drop tags, bring to NFC, collapse white space.

    Tags that set off blocks become a space, tags within a line nothing. Entities count only with
    their semicolon, so `AT&T` and `R&D` stay. Normalising twice changes nothing. The time is
    linear in the text, whatever stands in it.
    """
    for _ in range(_MOST_PASSES):
        cleaned = _pass(text)
        if cleaned == text:
            return cleaned
        text = cleaned
    return _pass(text.translate(_MARKUP_CHARS))


def holds_markup(text: str) -> bool:
    """Whether HTML stands in the text: tags, comments, entities, as `normalise_text` knows them."""
    entities = "&" in text and _ENTITY.search(text)
    return bool(entities or ("<" in text and (_TAG.search(text) or _without_unseen(text) != text)))


def _without_unseen(text: str) -> str:
    """The text with a space for each script, style and comment that is closed."""
    kept, at, place = [], 0, 0
    unclosed: set[str | None] = set()  # what is not closed once is not closed later
    while (found := _UNSEEN_FROM.search(text, place)) is not None:
        kind = found[1].lower() if found[1] else None
        end = None if kind in unclosed else _UNSEEN_TO[kind].search(text, found.end())
        if end is None:
            unclosed.add(kind)
            place = found.start() + 1
            continue
        kept += [text[at : found.start()], " "]
        at = place = end.end()
    return "".join([*kept, text[at:]])


@cache
def _many_marks() -> re.Pattern[str]:
    """Combining marks beyond 30 in a row: putting n into order takes time n * n.

    30 is the limit of Unicode's stream-safe format, which no language comes near. Looking for them
    takes longer than all else that is done to a text, and in a short one n is small.
    """
    marks = (chr(code) for code in range(sys.maxunicode + 1))
    every = "".join(mark for mark in marks if unicodedata.combining(mark))
    return re.compile(f"([{every}]{{30}})[{every}]+")


def cut_text(text: str, max_chars: int) -> str:
    """The first `max_chars` characters at most, cut at a space if there is one."""
    if len(text) <= max_chars:
        return text
    head = text[: max_chars + 1]
    return (head[: head.rfind(" ")] if " " in head else head[:max_chars]).rstrip()


def _pass(text: str) -> str:
    if "&" in text:
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    if "<" in text:
        text = _TAG.sub(" ", _INLINE.sub("", _without_unseen(text)))
    text = _CONTROL.sub("", text)
    if len(text) > _LONG_TEXT and not text.isascii():
        text = _many_marks().sub(r"\1", text)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())
