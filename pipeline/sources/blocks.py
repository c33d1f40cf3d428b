"""Text files in blocks of whole lines: memory is bounded by a block, line numbers stay right."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal, cast

Encoding = Literal["utf-8", "latin-1"]

BLOCK_BYTES = 1 << 22
# A line beyond this is no row of a table; of it only the beginning is held, to be shown.
LONGEST_LINE = 1 << 24
_SHOWN_BYTES = 1200
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Block:
    r"""Some whole lines of a file, with `\n` as line end and without a byte order mark.

    first_line: the 1-based number of the first of them.
    too_long: the block is one line beyond LONGEST_LINE, of which data are the beginning alone.
    """

    file: Path
    first_line: int
    data: bytes
    too_long: bool = False

    def after(self, lines: int) -> Block:
        """What follows the block's first lines."""
        place = 0
        for _ in range(lines):
            place = self.data.index(b"\n", place) + 1
        return Block(self.file, self.first_line + lines, self.data[place:])


def read_blocks(
    file: Path, *, encoding: Encoding = "utf-8", block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """Read a text file, .gz or plain, block by block.

    Args:
        file: its lines end in LF or CRLF; a byte order mark is skipped.
        encoding: `latin-1` is turned into UTF-8; UTF-8 is passed on as it is, not yet checked.
        block_bytes: size of a block; a longer line makes a block of its own.

    Raises:
        ValueError: the gzip data are damaged or break off, or the file is UTF-16; names the line
            up to which all was well.
    """
    line, rest, beyond = 1, b"", 0
    for chunk in _chunks(file, block_bytes):
        end = chunk.rfind(b"\n") + 1
        if not end:
            # Of a line that is too long the rest is passed over: memory stays bounded.
            room = LONGEST_LINE - len(rest)
            beyond += max(len(chunk) - room, 0)
            rest += chunk[:room]
            continue
        first = chunk.index(b"\n") + 1
        if len(rest) + beyond + first - 1 > LONGEST_LINE:
            yield _too_long(file, line, rest + chunk[: first - 1], encoding)
            line, rest, beyond = line + 1, chunk[first:end], 0
        else:
            rest += chunk[:end]
        if rest:
            yield _block(file, line, rest, encoding)
            line += rest.count(b"\n")
        rest = chunk[end:]
    if rest:
        yield (_too_long if beyond else _block)(file, line, rest, encoding)


def first_lines(file: Path, count: int = 20) -> tuple[str, ...]:
    """The first lines of a text file for a look at it, leniently decoded; fewer if they are long.

    Raises:
        ValueError: as for `read_blocks`.
    """
    block = next(read_blocks(file, block_bytes=1 << 18), None)
    if block is None:
        return ()
    lines = block.data.decode("utf-8", "replace").split("\n", count)[:count]
    return tuple(line for line in lines if line.strip())


def _too_long(file: Path, line: int, data: bytes, encoding: Encoding) -> Block:
    return replace(_block(file, line, data[:_SHOWN_BYTES], encoding), too_long=True)


def _block(file: Path, line: int, data: bytes, encoding: Encoding) -> Block:
    if encoding == "latin-1":
        data = data.decode("latin-1").encode()
    return Block(file, line, data.replace(b"\r\n", b"\n") if b"\r" in data else data)


def _chunks(file: Path, size: int) -> Iterator[bytes]:
    """The file's bytes, decompressed, without a byte order mark."""
    opened = gzip.open(file) if file.name.endswith(".gz") else file.open("rb")  # noqa: SIM115
    lines, is_first = 1, True
    with cast("IO[bytes]", opened) as stream:
        while True:
            try:
                chunk = stream.read(size)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(
                    f"{file}:{lines}: the gzip data are damaged or break off after this line "
                    f"({error}): fetch or write the file again"
                ) from error
            if not chunk:
                return
            if is_first and chunk.startswith(_UTF16):
                raise ValueError(f"{file}:1: the file is UTF-16, expected UTF-8: convert it")
            lines += chunk.count(b"\n")
            yield chunk.removeprefix(_BOM) if is_first else chunk
            is_first = False
