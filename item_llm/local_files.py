"""What Lance leaves to its user on a local disk: it does not fsync, and a power cut can tear files.

A table's commit is its newest manifest, which names the data files. After a power cut the newest
manifest or a data file that only it names may be torn; such a version was never acknowledged,
because a commit is synced before it is.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from item_llm.folders import fsync_path

_log = logging.getLogger(__name__)
_VERSION_ENDS = 2**64 - 1  # Lance names version v's manifest 2**64 - 1 - v, so that newest is first
_VERSIONS = "_versions"
_TORN = ".torn"
_MARK = ".synced"  # its time is when the last whole sync began
_MARGIN_NS = 60 * 10**9  # for a clock that is set back, and a file that was long in writing


class LocalFiles:
    """The files of one table below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._synced: set[tuple[str, int]] = set()

    def sync(self) -> None:
        """Sync what was not synced yet: data first, manifests last, then their folders.

        A file older than the last whole sync, by whatever process, is left out.
        """
        began, since = time.time_ns(), self._last_sync()
        folders = sorted(self._folders(self.root), key=lambda path: Path(path).name == _VERSIONS)
        for folder in folders:
            new = [mark for mark in _marks(folder, since) if mark not in self._synced]
            for mark in new:
                with suppress(FileNotFoundError):  # another writer's, which gave it up just now
                    fsync_path(Path(mark[0]))
            if new:
                fsync_path(Path(folder))
            self._synced.update(new)
        (self.root / _MARK).touch()
        os.utime(self.root / _MARK, ns=(began, began))

    def _last_sync(self) -> int:
        mark = self.root / _MARK
        return mark.stat().st_mtime_ns - _MARGIN_NS if mark.exists() else 0

    def manifests(self) -> list[tuple[int, Path]]:
        """Version and manifest of all versions, newest first."""
        found = (self.root / _VERSIONS).glob("*.manifest")
        return sorted(((_version(path), path) for path in found), reverse=True)

    def set_aside(self, version: int, path: Path, error: Exception) -> None:
        """Take a torn version out of the table; its manifest is kept in `.torn/`."""
        grave = self.root / _TORN
        grave.mkdir(exist_ok=True)
        os.replace(path, grave / path.name)
        fsync_path(path.parent)
        _log.warning(
            "%s: version %d is torn (%s); set aside in %s, going on from the version before it",
            self.root,
            version,
            str(error).split("\n")[0][:200],
            grave,
        )

    def _folders(self, folder: Path | str) -> Iterator[str]:
        yield str(folder)
        with os.scandir(folder) as entries:
            inner = [e.path for e in entries if e.is_dir() and e.name != _TORN]
        for path in inner:
            yield from self._folders(path)


def _marks(folder: str, since: int) -> list[tuple[str, int]]:
    """Path and size of each finished file since then: Lance writes `.tmp...` and renames."""
    marks = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".tmp") or not entry.is_file():
                continue
            with suppress(FileNotFoundError):  # as in `sync`
                facts = entry.stat()
                if facts.st_mtime_ns >= since:
                    marks.append((entry.path, facts.st_size))
    return marks


def _version(path: Path) -> int:
    """Version number in a manifest's name; both of Lance's naming schemes."""
    match = re.fullmatch(r"(\d+)\.manifest", path.name)
    if match is None:
        raise ValueError(f"{path}: no name of a Lance manifest; move it away")
    number = int(match.group(1))
    return _VERSION_ENDS - number if len(match.group(1)) == 20 else number
