"""Long names within a line may break at their joints, not in the middle of a word."""

from __future__ import annotations

import re
from typing import Any

_SHORT = 20  # characters that fit beside others on a phone
# Blocks of code have spans in them, or an empty one before them.
_CODE = re.compile(rf"(?<!<span></span>)<code>([^<\n]{{{_SHORT},}})</code>")
_JOINT = re.compile(r"(::|[_/.])(?=\w)")


def on_page_content(content: str, **_: Any) -> str:
    """Let the browser break long code at `_`, `/`, `.` and `::`."""
    return _CODE.sub(_with_breaks, content)


def _with_breaks(code: re.Match[str]) -> str:
    text = _JOINT.sub(r"\1<wbr>", code[1])
    return f"<code>{text}</code>"
