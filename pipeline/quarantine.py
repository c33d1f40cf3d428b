"""Rows that were refused: counted, listed in a file as they come, and too many of them refused."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TextIO

from pipeline.sources.tables import RejectedRow

# Rows listed beyond max_bad_rows: enough to see a pattern, few enough for any disk.
_SHOWN = 20
_NAMED = 3


class Quarantine:
    """The refused rows of one domain, FOLDER/DOMAIN.jsonl; no row, no file.

    Holds the counts and the first few rows only, whatever comes in.
    """

    def __init__(self, folder: Path, domain: str, allowed: int) -> None:
        """Say where; entering the context makes it writable.

        Args:
            folder: made if absent, once a row is refused.
            domain: the domain's name.
            allowed: rows that may be refused: cleaning.max_bad_rows.
        """
        self.rows_read = 0
        self.reasons: Counter[str] = Counter()
        self._path, self._domain, self._allowed = folder / f"{domain}.jsonl", domain, allowed
        self._first: list[RejectedRow] = []
        self._stream: TextIO | None = None

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Flush what was written to the disk."""
        if self._stream is not None:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._stream = None

    def take(self, rows_read: int, rejected: Iterable[RejectedRow]) -> None:
        """Count a part's rows, and list those that were refused.

        Args:
            rows_read: rows behind the part, good and bad.
            rejected: the bad ones.

        Raises:
            ValueError: more rows than allowed were refused so far.
        """
        self.rows_read += rows_read
        for row in rejected:
            self._list(row)
        bad = self.reasons.total()
        if bad > self._allowed:
            raise ValueError(self._too_many(bad))

    def counts(self) -> dict[str, int]:
        """Rows by reason, sorted by reason."""
        return dict(sorted(self.reasons.items()))

    def _list(self, row: RejectedRow) -> None:
        number = self.reasons.total()
        self.reasons[row.reason] += 1
        if number < _NAMED:
            self._first.append(row)
        if number < self._allowed + _SHOWN:
            line = {"file": row.file.name, "line": row.line, "reason": row.reason, "row": row.row}
            self._file().write(json.dumps(line, ensure_ascii=False) + "\n")

    def _file(self) -> TextIO:
        if self._stream is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._path.open("w", encoding="utf-8")
        return self._stream

    def _too_many(self, bad: int) -> str:
        first, *others = map(str, self._first)
        then = "".join(f"; then {other}" for other in others)
        return (
            f"domain {self._domain}: {bad} of the first {self.rows_read} rows cannot be read, and "
            f"cleaning.max_bad_rows is {self._allowed}; the first is {first}{then}; mend the file "
            "or raise max_bad_rows"
        )
