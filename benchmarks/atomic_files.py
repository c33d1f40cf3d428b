"""Data sets as RecBole's atomic files FOLDER/NAME/NAME.inter and NAME.item."""

import gzip
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path

from pipeline.paths import data_root

_INTER = ("user_id:token", "item_id:token", "timestamp:float")
_ITEM = ("item_id:token", "title:token_seq")


def movielens_1m(folder: Path) -> str:
    """Write MovieLens-1M; return its name."""
    source = data_root() / "ml1m"
    with gzip.open(source / "sequences.tsv.gz", "rt", encoding="utf-8") as stream:
        events = [
            event
            for user, items, times in (line.rstrip("\n").split("\t") for line in stream)
            for event in zip(repeat(user), items.split(), times.split(), strict=False)
        ]
    with gzip.open(source / "items.tsv.gz", "rt", encoding="utf-8") as stream:
        items = [line.rstrip("\n").split("\t")[:2] for line in stream]
    return _write(folder, "ml-1m", events, items)


def small_dataset(folder: Path) -> str:
    """Write 60 users who had most of 20 items each; return its name."""
    events = [
        (f"u{user}", f"i{item}", f"{1_000_000 + user * 7 + item * 11}")
        for user in range(60)
        for item in range(20)
        if (user * item) % 7 != 1
    ]
    return _write(folder, "small", events, [(f"i{item}", f"Item {item}") for item in range(20)])


def _write(
    folder: Path, name: str, events: Iterable[Iterable[str]], items: Iterable[Iterable[str]]
) -> str:
    (folder / name).mkdir()
    for kind, header, rows in (("inter", _INTER, events), ("item", _ITEM, items)):
        with (folder / name / f"{name}.{kind}").open("w", encoding="utf-8") as stream:
            stream.writelines("\t".join(row) + "\n" for row in (header, *rows))
    return name
