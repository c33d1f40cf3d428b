"""Item texts as people would read them: no markup, one kind of space, one form of each letter."""

from __future__ import annotations

import html
import re
import unicodedata

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_UNSEEN = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>|<!--.*?-->", re.I | re.S)
_INLINE = re.compile(r"</?(?:a|b|big|em|font|i|small|span|strong|sub|sup|u)\b[^<>]*>", re.I)
# A letter must follow, so that `3 < 5 > 2` and `<3` stay.
_TAG = re.compile(r"</?[a-zA-Z!][^<>]*>")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff]")


def normalise_text(text: str) -> str:
    """Decode HTML entities, drop tags, bring to NFC, collapse white space.

    Tags that set off blocks become a space, tags within a line nothing. Entities count only with
    their semicolon, so `AT&T` and `R&D` stay. Normalising twice changes nothing.
    """
    while True:
        cleaned = _pass(text)
        if cleaned == text:
            return cleaned
        text = cleaned


def holds_markup(text: str) -> bool:
    """Whether HTML stands in the text: tags, comments, entities, as `normalise_text` knows them."""
    entities = "&" in text and _ENTITY.search(text)
    return bool(entities or ("<" in text and (_TAG.search(text) or _UNSEEN.search(text))))


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
        text = _TAG.sub(" ", _INLINE.sub("", _UNSEEN.sub(" ", text)))
    text = _CONTROL.sub("", text)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())
