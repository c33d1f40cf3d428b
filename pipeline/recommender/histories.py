"""Where a batch of recommendations gets users and their histories: a run's corpus, or a file.

Both are opened by every worker on its own, and read a part at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.corpus import Corpus
from pipeline.row_keys import user_ids
from pipeline.whole_files import file_sha256

_USER, _ITEMS, _TIMES = "user_id", "item_ids", "times"


@dataclass(frozen=True)
class Part:
    """Some users, their item ids, oldest first, and the events' unix seconds, where there are."""

    users: list[str]
    histories: list[list[str]]
    times: list[list[int]] | None


class UserHistories(Protocol):
    """The users of one domain, in a fixed order."""

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Hash of all of it."""

    def part(self, start: int, stop: int) -> Part:
        """Users start .. stop - 1."""


class CorpusHistories:
    """All people of a corpus who have events in a domain, with all their events in it.

    Args:
        folder: the corpus.
        domain: its name.

    Raises:
        ValueError: no corpus, or it has no such domain.
    """

    def __init__(self, folder: Path, domain: str) -> None:
        self._corpus = Corpus.open(folder)
        self._domain = self._corpus.domain(domain)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def fingerprint(self) -> str:
        """Hash of the corpus."""
        return self._corpus.fingerprint()

    def part(self, start: int, stop: int) -> Part:
        """Users start .. stop - 1, by user key."""
        corpus, rows = self._corpus, self._rows[start:stop]
        histories, times = [], []
        for row in rows:
            events = slice(int(corpus.offsets[row]), int(corpus.offsets[row + 1]))
            own = self._own(corpus.items[events])
            histories.append(corpus.item_ids.take(corpus.items[events][own].astype(np.int64)))
            times.append(corpus.timestamps[events][own].tolist())
        sequence = self._domain.name if self._domain.order == "sequence" else None
        users = user_ids(self._domain.platform, corpus.user_keys.take(rows), sequence)
        without = self._domain.order == "sequence"
        ids = [history.to_list() for history in histories]
        return Part(users.to_list(), ids, None if without else times)

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        found = [np.zeros(0, dtype=np.int64)]
        for rows, events in self._corpus.row_blocks():
            own = np.concatenate([[0], self._own(self._corpus.items[events]).cumsum()])
            ends = self._corpus.offsets[rows.start : rows.stop + 1] - events.start
            found.append(rows.start + np.flatnonzero(np.diff(own[ends])))
        return np.concatenate(found)

    def _own(self, items: NDArray[np.int32]) -> NDArray[np.bool_]:
        first = self._domain.first_item
        return (items >= first) & (items < first + self._domain.n_items)


class FileHistories:
    """A Parquet file with columns user_id, item_ids (a list), and times (a list) if wanted.

    Raises:
        ValueError: no such file, or without the columns.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = pq.ParquetFile(path, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise ValueError(f"histories {path}: {error}; give a Parquet file") from error
        self._path, names = path, self._file.schema_arrow.names
        if missing := {_USER, _ITEMS} - set(names):
            raise ValueError(
                f"histories {path}: got columns {', '.join(names)}, expected {_USER}, {_ITEMS} "
                f"(a list of ids, oldest first) and perhaps {_TIMES}; {sorted(missing)[0]} is "
                "missing"
            )
        self._columns = [name for name in (_USER, _ITEMS, _TIMES) if name in names]

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the file."""
        return file_sha256(self._path)

    def part(self, start: int, stop: int) -> Part:
        """Users start .. stop - 1, in the order of the file."""
        table = pa.concat_tables(self._pieces(start, stop))
        columns: dict[str, list[Any]] = table.to_pydict()
        users = [str(user) for user in columns[_USER]]
        histories = [[str(item) for item in items or []] for items in columns[_ITEMS]]
        return Part(users, histories, columns.get(_TIMES))

    def _pieces(self, start: int, stop: int) -> Iterator[pa.Table]:
        first = 0
        for group in range(self._file.num_row_groups):
            count = self._file.metadata.row_group(group).num_rows
            low, high = max(start - first, 0), min(stop - first, count)
            if low < high:
                read = self._file.read_row_group(group, columns=self._columns)
                yield read.slice(low, high - low)
            first += count


def open_histories(place: Path, domain: str) -> UserHistories:
    """Those of a file, or of a corpus's folder; raises ValueError as they do."""
    return CorpusHistories(place, domain) if place.is_dir() else FileHistories(place)
