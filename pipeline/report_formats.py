"""How numbers, times and moments are written for readers, in the page and in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

ABSENT = "\u2013"
Kind = Literal["plain", "signed", "count", "share", "change", "times"]


@dataclass(frozen=True)
class Figure:
    """A number of metrics.json as it is shown, and where it stands there.

    Attributes:
        value: the number, or the quotient of two.
        pointer: where in metrics.json, as a JSON pointer; the page carries it, so that a test can
            compare every figure with its source.
        kind: how it is written.
        over: of a quotient, the pointer of its denominator.
    """

    value: float
    pointer: str
    kind: Kind = "plain"
    over: str = ""

    @property
    def text(self) -> str:
        """The number as readers see it."""
        if self.kind == "signed":
            return signed(self.value)
        if self.kind == "count":
            return f"{self.value:,.0f}"
        if self.kind == "share":
            return f"{self.value:.0%}"
        if self.kind == "change":
            return f"{self.value:+.1%}".replace("-", "\u2212")
        return f"{self.value:.1f}\u00d7" if self.kind == "times" else f"{self.value:.4f}"


def pointer(*keys: str | int) -> str:
    """A JSON pointer (RFC 6901).

    >>> pointer("domains", "a/b", "ci95", 0)
    '/domains/a~1b/ci95/0'
    """
    return "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in keys)


def signed(value: float) -> str:
    """A difference with its sign and 4 decimals.

    >>> signed(-0.00125), signed(0.0), signed(0.25)
    ('−0.0013', '0.0000', '+0.2500')
    """
    text = f"{value:+.4f}"
    return "0.0000" if float(text) == 0 else text.replace("-", "\u2212")


def listed(names: list[str]) -> str:
    """Names as a sentence lists them.

    >>> listed([]), listed(["a"]), listed(["a", "b", "c"])
    ('', 'a', 'a, b and c')
    """
    return "".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them.

    >>> duration(0.04), duration(9.26), duration(492), duration(8000)
    ('0.0 s', '9.3 s', '8 min 12 s', '2 h 13 min')
    """
    if seconds is None:
        return ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(started: str) -> str:
    """An ISO 8601 time as people read it; any other text stands for itself.

    >>> moment("2026-03-14T09:26:53Z"), moment("yesterday")
    ('14 March 2026, 09:26 UTC', 'yesterday')
    """
    try:
        time = datetime.fromisoformat(started)
    except ValueError:
        return started
    return f"{time.day} {time:%B %Y, %H:%M} {time.tzname() or ''}".rstrip()


def thousands(value: int | None) -> str:
    """A number of parameters, short.

    >>> thousands(812), thousands(64_512), thousands(134_515_008), thousands(None)
    ('812', '64.5 k', '134.5 M', '–')
    """
    if value is None:
        return ABSENT
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value}"


def megabytes(value: float | None) -> str:
    """Memory in MB, or in GB from 10,000 MB on.

    >>> megabytes(895.1), megabytes(12_345.0), megabytes(None)
    ('895 MB', '12.3 GB', '–')
    """
    if value is None:
        return ABSENT
    return f"{value:,.0f} MB" if value < 10_000 else f"{value / 1000:.1f} GB"
