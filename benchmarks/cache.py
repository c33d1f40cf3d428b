"""The cache of item vectors at scale: `python -m benchmarks.cache`.

A catalogue of made-up texts, vectors 256 wide, and a stub encoder that takes half a millisecond a
text. Equality first: what comes out of the cache is what the encoder gave, after every refresh.
Then times: a refresh with nothing, 1% and all changed, its growth with what changed, a million
items of which none changed (in a process of its own, for its memory), and a snapshot.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Check, Timing, alternate, finish, median_ratio
from item_llm.cache import EmbeddingCache
from item_llm.item_keys import Catalogue
from item_llm.refresh import CatalogueRefresh, Encoded, Refreshed
from item_llm.snapshot import Snapshot
from pipeline.resident_memory import peak_bytes

FINGERPRINT = "b" * 64
DIM = 256
SECONDS_A_TEXT = 0.0005
_BATCH = 256


def vectors_of(texts: list[str]) -> np.ndarray:
    """float32 [n, 256]: what the stub encoder gives, decided by each text's number and edition."""
    numbers = np.array([text.split()[1:3] for text in texts], dtype=np.float32).reshape(-1, 2)
    ramp = np.linspace(0.1, 1.0, DIM, dtype=np.float32)
    return np.sin(numbers[:, :1] * 1e-3 + ramp) + numbers[:, 1:] * ramp


def encode(texts: list[str]) -> Iterator[Encoded]:
    """The stub encoder."""
    for start in range(0, len(texts), _BATCH):
        block = texts[start : start + _BATCH]
        until = time.perf_counter() + SECONDS_A_TEXT * len(block)
        vectors = vectors_of(block)
        time.sleep(max(0.0, until - time.perf_counter()))
        yield Encoded(block, vectors)


def catalogue(items: int, changed: int = 0, edition: int = 0) -> Catalogue:
    """`items` items with distinct texts, of which the first `changed` are of another edition."""
    texts = [
        f"item {number} {edition if number < changed else 0} wooden train set with bridge"
        for number in range(items)
    ]
    ids = [f"B{number:09d}" for number in range(items)]
    return Catalogue(("toys",), np.zeros(items, np.int32), ids, texts)


def refresh(folder: Path, wanted: Catalogue) -> tuple[Refreshed, float]:
    """A whole refresh from opening the tables on; what it did, and its seconds."""
    began = time.perf_counter()
    work = CatalogueRefresh(EmbeddingCache.open(folder, FINGERPRINT, DIM))
    done = work.run(wanted, work.plan(wanted), encode)
    return done, time.perf_counter() - began


def check_equality(folder: Path, wanted: Catalogue) -> None:
    """Raise unless every item's stored vector is the encoder's."""
    cache = EmbeddingCache.open(folder, FINGERPRINT, DIM)
    with tempfile.TemporaryDirectory() as scratch:
        snapshot = cache.snapshot(wanted.texts, Path(scratch))
        if not np.array_equal(snapshot.vectors, vectors_of(list(wanted.texts))):
            raise SystemExit("the cache hands out vectors that the encoder did not give")


def refreshes(folder: Path, items: int) -> tuple[list[Check], list[dict[str, Any]]]:
    """Refreshes with all, nothing and ever more changed."""
    done, full = refresh(folder, catalogue(items))
    assert done.encoded == items, done
    check_equality(folder, catalogue(items))
    nothing = [refresh(folder, catalogue(items))[1] for _ in range(5)]
    rows = [{"changed": items, "seconds": full}, {"changed": 0, "seconds": min(nothing)}]
    print(f"all {items:,} changed: {full:.1f} s; none: {Timing.of(nothing)}", flush=True)
    grown = []
    for edition, share in enumerate((0.01, 0.02, 0.05, 0.1, 0.2), start=1):
        wanted = catalogue(items, round(share * items), edition)
        done, seconds = refresh(folder, wanted)
        assert done.encoded == round(share * items), done
        check_equality(folder, wanted)
        grown.append((done.encoded, seconds))
        rows.append({"changed": done.encoded, "seconds": seconds})
        print(f"{done.encoded:,} changed: {seconds:.2f} s", flush=True)
    changed, seconds_of = np.array([*grown, (items, full)]).T
    slope = float(np.polyfit(np.log(changed), np.log(seconds_of), 1)[0])
    floor = Timing.of(nothing).median
    checks = [
        Check("nothing changed, s", floor, 2.0, "most"),
        Check("nothing changed / all", floor / full, 0.01, "most"),
        Check("1% changed / all", grown[0][1] / full, 0.03, "most"),
        Check("slope of growth, least", slope, 0.9, "least"),
        Check("slope of growth, most", slope, 1.1, "most"),
    ]
    return checks, rows


def snapshot_checks(folder: Path, items: int) -> tuple[list[Check], list[dict[str, Any]]]:
    """Opening, random rows, and reading all against a plain memmap."""
    cache = EmbeddingCache.open(folder, FINGERPRINT, DIM)
    wanted = catalogue(items, round(0.2 * items), 5).texts
    with tempfile.TemporaryDirectory() as scratch:
        place, order = Path(scratch), cache.order(wanted)
        cache.snapshot(wanted, place)
        chosen = np.random.default_rng(0).integers(0, items, 10_000)

        def rows() -> None:
            Snapshot.open(place, fingerprint=FINGERPRINT, order=order).rows(chosen)

        def plain() -> None:
            np.array(np.memmap(place / "vectors.f32", np.float32, "r", shape=(items, DIM)))

        def whole() -> None:
            Snapshot.open(place, fingerprint=FINGERPRINT, order=order).rows(slice(None))

        def checked() -> None:
            Snapshot.open(place, fingerprint=FINGERPRINT, order=order, verify=True)

        times = alternate({"rows": rows, "plain": plain, "whole": whole, "checked": checked}, 9, 2)
    opened = Timing.of(times["rows"])
    share = median_ratio(times["plain"], times["whole"])
    print(f"snapshot open and 10,000 random rows: {opened}")
    checks = [
        Check("snapshot open + 10k rows, ms", 1e3 * opened.median, 10.0, "most"),
        Check("full read, share of a memmap's speed", share, 0.8, "least"),
    ]
    return checks, [{"snapshot": k, "seconds": Timing.of(v).median} for k, v in times.items()]


def unchanged_million(folder: Path, items: int) -> None:
    """A refresh of many items of which none changed; prints its seconds and its peak memory."""
    wanted = catalogue(items)
    _, seconds = refresh(folder, wanted)
    print(seconds, peak_bytes() / 1e6)


def million_checks(folder: Path, items: int) -> tuple[list[Check], list[dict[str, Any]]]:
    """The same in a process of its own, after the vectors were put there without an encoder."""
    cache, wanted = EmbeddingCache.open(folder, FINGERPRINT, DIM), catalogue(items)
    work = CatalogueRefresh(cache)
    blocks = (list(wanted.texts[i : i + 50_000]) for i in range(0, items, 50_000))
    cache.commit((block, vectors_of(block)) for block in blocks)
    work.run(wanted, work.plan(wanted), encode)
    command = [sys.executable, "-m", "benchmarks.cache", "--unchanged", str(folder)]
    run = subprocess.run(
        [*command, "--million", str(items)], check=True, stdout=subprocess.PIPE, text=True
    )
    seconds, peak = map(float, run.stdout.split())
    checks = [
        Check(f"{items:,} items, none changed, s", seconds, 10.0, "most"),
        Check(f"{items:,} items, none changed, peak MB", peak, 1000.0, "most"),
    ]
    return checks, [{"items": items, "seconds": seconds, "peak_mb": peak}]


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=200_000, help="texts of the refreshes")
    parser.add_argument("--million", type=int, default=1_000_000, help="items of the unchanged one")
    parser.add_argument("--unchanged", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.unchanged is not None:
        unchanged_million(options.unchanged, options.million)
        return 0
    with tempfile.TemporaryDirectory(prefix="hydrarec-cache-") as scratch:
        folder = Path(scratch)
        parts = [
            refreshes(folder / "refresh", options.texts),
            snapshot_checks(folder / "refresh", options.texts),
            million_checks(folder / "million", options.million),
        ]
    checks = [check for found, _ in parts for check in found]
    return finish("cache", checks, [row for _, rows in parts for row in rows])


if __name__ == "__main__":
    sys.exit(main())
