"""Disks that are full, read-only or broken: one sentence instead of a library's traceback.

Libraries tell them in ways of their own: Python by a number, Rust ones (Lance, polars,
safetensors) by a text that ends in "(os error 28)", numpy by how many values it could not write.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.storage.bucket import StorageError

_WHAT = {
    errno.ENOSPC: ("is full", "free some space there"),
    errno.EDQUOT: ("has no more room for this user", "free some space there"),
    errno.EFBIG: ("takes no file of this size", "raise the limit (`ulimit -f`)"),
    errno.EROFS: ("is read-only", "have it mounted to be written"),
    errno.EACCES: ("may not be used", "change its owner or its rights"),
    errno.EPERM: ("may not be used", "change its owner or its rights"),
    errno.EIO: ("does not answer", "see the system's log about the disk"),
}
_NUMBERED = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]", re.IGNORECASE)
_SHORT_OF = re.compile(r"^\d+ requested and \d+ written$")  # numpy, of whatever kept it


class DiskError(StorageError):
    """A file could not be written, and the reason is the disk's."""


def disk_error(error: BaseException, place: str, doing: str = "") -> DiskError | None:
    """What to tell the user, if an error or one that it came from is the disk's; else None.

    Args:
        error: as it was caught.
        place: the folder that is written to, where the error names no file.
        doing: what was being done, such as a stage's name.
    """
    for each in _chain(error):
        if isinstance(each, ValueError):  # a sentence for the user already
            return None
        if isinstance(each, DiskError):
            return each
        number = _number(each)
        if number in _WHAT:
            state, remedy = _WHAT[number]
            told = str(each).splitlines()[0]
            return DiskError(
                f"the disk of {getattr(each, 'filename', None) or place} {state}"
                f" ({f'{doing}: ' if doing else ''}{told}); {remedy}, or name another folder, then "
                "give the same command again: what is finished is kept, training with its "
                "checkpoint"
            )
    return None


@contextmanager
def telling_of_the_disk(
    place: str, doing: str, on_error: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Within the block, an error of the disk's becomes a `DiskError`.

    Args:
        place: the folder that is written to.
        doing: what is being done.
        on_error: called before it is raised, to remove what was half written.
    """
    try:
        yield
    except Exception as error:
        told = disk_error(error, place, doing)
        if told is None:
            raise
        on_error()
        raise told from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _number(error: BaseException) -> int | None:
    """The system's number of an error; None: it is none of the system's."""
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        return number
    text = str(error)
    if _SHORT_OF.match(text):
        return errno.ENOSPC
    found = _NUMBERED.search(text)
    return int(found[1] or found[2]) if found else None
