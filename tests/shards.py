"""A part of the test suite: `pytest --shard 2/4` runs every fourth file, from the second on.

Whole files, since their tests share what is expensive to make; every fourth, since neighbours in
one folder cost alike.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest


def parsed_shard(text: str) -> tuple[int, int]:
    """(number from 1, how many) of `2/4`."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise pytest.UsageError(f"--shard: got {text!r}, expected NUMBER/COUNT, such as 2/4")
    return int(found[1]), int(found[2])


def files_of_shard(files: Sequence[Path], number: int, count: int) -> set[Path]:
    """The files that a shard has; each file is in one of them."""
    return set(sorted(set(files))[number - 1 :: count])
