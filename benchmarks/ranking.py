"""Exact top k of whole catalogues against the bare product and against matrix and topk.

    python -m benchmarks.ranking [--items 1000000] [--threads 1] [--repetitions 5]

Ours computes blocks of scores in a buffer that is used again and keeps what is above each user's
bar. Equality with a full sort by torch.topk is asked first. Then, of a batch of 256 users:

* throughput against the bare product of the same matrices, without any selection, in its fastest
  form here: in the same blocks, into the same buffer. In one call it writes all scores.
* peak memory above the table, in a fresh process.
* at 100,000 items, time and memory against the full matrix of scores, seen items set to -inf, and
  torch.topk of it, which is how RecBole ranks all items.

Times are of the processor, so that others on the machine count little.
Shapes: b users, V items, w width.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.harness import Check, Timing, alternate, finish, median_ratio
from pipeline import resident_memory
from pipeline.recommender.top_items import TopItems, block_columns, top_items

USERS, WIDTH, K, SEEN = 256, 64, 100, 50
_COMPARED_USERS = 32  # of a million items their matrix of scores takes 128 MB
_MEGABYTE = 1e6
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Problem:
    """Users, items and what the users have seen; vectors have length 1."""

    users: torch.Tensor
    items: torch.Tensor
    seen: list[NDArray[np.int64]]

    @classmethod
    def make(cls, n_items: int, n_users: int = USERS) -> Problem:
        """Draw one."""
        generator = torch.Generator().manual_seed(0)
        users, items = (
            functional.normalize(torch.randn(rows, WIDTH, generator=generator), dim=1)
            for rows in (n_users, n_items)
        )
        rng = np.random.default_rng(0)
        return cls(users, items, [rng.integers(0, n_items, SEEN) for _ in range(n_users)])

    def ours(self) -> TopItems:
        """Blocks and bars."""
        return top_items(self.users, [self.items.numpy()], K, self.seen)

    def matrix(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All scores, seen items out, then topk: scores and rows [b, k]."""
        scores_bV = self.users @ self.items.T
        users = torch.arange(len(self.seen)).repeat_interleave(SEEN)
        scores_bV[users, torch.from_numpy(np.concatenate(self.seen))] = -torch.inf
        best = scores_bV.topk(K)
        return best.values, best.indices

    def product(self) -> None:
        """The product alone, in blocks into one buffer."""
        columns = block_columns(len(self.users), len(self.items))
        buffer = torch.empty(len(self.users) * columns)
        for at in range(0, len(self.items), columns):
            block_mw = self.items[at : at + columns]
            into = buffer[: len(self.users) * len(block_mw)].view(len(self.users), -1)
            torch.mm(self.users, block_mw.T, out=into)

    def whole_product(self) -> torch.Tensor:
        """The product alone, in one call."""
        return self.users @ self.items.T


def main(arguments: Sequence[str] | None = None) -> int:
    """Check equality, measure, print; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.peak:
        print(_peak(options.peak, options.items))
        return 0
    few = min(100_000, options.items)
    checks = [_equality(n) for n in (few, options.items)]
    if not all(check.ok for check in checks):
        return finish("ranking", checks, [])  # the time of another result means nothing
    rows: list[dict[str, object]] = []
    large = Problem.make(options.items)
    rivals = {
        "ours": large.ours,
        "product": large.product,
        "product, one call": large.whole_product,
    }
    seconds = alternate(rivals, options.repetitions, clock=time.process_time)
    rows += _told(seconds, options.items)
    peak = _peak_in_fresh("ours", options.items, options.threads)
    throughput = median_ratio(seconds["product"], seconds["ours"])
    checks += [
        Check(
            f"{options.items:,} items: throughput, ours / bare product", throughput, 0.6, "least"
        ),
        Check(f"{options.items:,} items: peak MB above the table", peak / _MEGABYTE, 300, "most"),
    ]
    small = Problem.make(few)
    seconds = alternate(
        {"ours": small.ours, "matrix": small.matrix}, options.repetitions, clock=time.process_time
    )
    rows += _told(seconds, few)
    peaks = {form: _peak_in_fresh(form, few, options.threads) for form in ("ours", "matrix")}
    rows += [{"items": few, "form": form, "peak_bytes": peaks[form]} for form in peaks]
    slower = median_ratio(seconds["matrix"], seconds["ours"])
    checks += [
        Check(f"{few:,} items: time, matrix and topk / ours", slower, 1.0, "least"),
        Check(
            f"{few:,} items: memory, matrix and topk / ours",
            peaks["matrix"] / max(peaks["ours"], 1), 20.0, "least",
        ),
    ]  # fmt: skip
    return finish("ranking", checks, rows)


def _equality(n_items: int) -> Check:
    """The largest difference of scores, rank by rank; infinite where other items were found."""
    problem = Problem.make(n_items, _COMPARED_USERS)
    found, (scores, rows) = problem.ours(), problem.matrix()
    difference = np.abs(found.scores - scores.numpy())
    same = (found.rows == rows.numpy()) | (difference < _TOLERANCE)  # neighbours may swap
    worst = float(difference.max()) if same.all() and (found.counts == K).all() else np.inf
    return Check(f"{n_items:,} items: scores, ours - full sort", worst, _TOLERANCE, "most")


def _peak(form: str, n_items: int) -> int:
    """By how much one call raises the resident memory of this process."""
    warm, problem = Problem.make(5000), Problem.make(n_items)
    run = {"ours": (warm.ours, problem.ours), "matrix": (warm.matrix, problem.matrix)}[form]
    run[0]()
    return resident_memory.peak_extra_bytes(run[1])[0]


def _peak_in_fresh(form: str, n_items: int, threads: int) -> int:
    command = [sys.executable, "-m", "benchmarks.ranking", "--peak", form]
    command += ["--items", str(n_items), "--threads", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout)


def _told(seconds: dict[str, list[float]], n_items: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for form, found in seconds.items():
        timing = Timing.of(found)
        print(f"{n_items:>10,} items  {form:18} {timing}  {USERS / timing.median:,.0f} users/s")
        rows.append(
            {
                **{"items": n_items, "form": form, "cpu_seconds": timing.median},
                **{"low": timing.low, "high": timing.high, "users_per_s": USERS / timing.median},
            }
        )
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=1_000_000, help="of the large catalogue")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--peak", choices=("ours", "matrix"), help="measure memory, print bytes")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
