#!/usr/bin/env python
"""Recommend to all users of a domain, from a bundle, into Parquet files.

    python -m pipeline.export runs/demo --output bundles/demo
    python jobs/recommend.py --bundle bundles/demo --domain books
        --run runs/demo --output recommendations/books

With --run the users are the run's, with all their events of the domain; with
--histories they stand in a Parquet file with columns user_id and item_ids (a
list, oldest first). A file holds --shard-users users; files that are there
are not made again, so after Ctrl-C or a crash the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.command_line import finished, job_parser
from pipeline.paths import project_root, resolve, resolve_place

if TYPE_CHECKING:
    from pipeline.recommender.batches import Request


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status, as `finished` does."""
    options = _parser().parse_args(arguments)
    return finished(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Make what is missing, then print how many users, and where."""
    from pipeline.progress import Progress
    from pipeline.recommender.batches import recommend_all
    from pipeline.workers.cluster import ComputeConfig, connected
    from pipeline.workers.recommend import shards_on_cluster

    request, progress = _request(options), Progress()
    workers = 1 if options.in_process else options.workers
    compute = ComputeConfig(workers=workers, in_process=options.in_process)

    def make(asked: Request, numbers: list[int]) -> Iterable[int]:
        if numbers:  # else no Ray is started
            with connected(compute):
                yield from shards_on_cluster(asked, numbers, compute)

    progress.expect(["recommend"])
    with progress.running(), progress.stage("recommend") as stage:
        described = recommend_all(
            request, make, lambda done, total: stage.update(done, total, "users")
        )
    progress.console.print(
        f"{described['users']:,} users of {request.domain}: {request.output}",
        highlight=False,
        soft_wrap=True,
    )


def _request(options: argparse.Namespace) -> Request:
    """What was asked for, with the corpus of the run.

    Raises:
        ValueError: no finished run, or its corpus is no longer in the run store.
    """
    from pipeline.prepare import CORPUS
    from pipeline.recommender.batches import Request
    from pipeline.run_outputs import RunOutputs

    root = project_root()
    if options.run is not None:
        histories = RunOutputs.read(resolve(options.run, root)).output("corpus") / CORPUS
    else:
        histories = resolve(options.histories, root)
    for name in ("k", "shard_users", "workers"):
        if getattr(options, name) < 1:
            option = name.replace("_", "-")
            raise ValueError(f"--{option}: got {getattr(options, name)}, expected 1 or more")
    return Request(
        bundle=resolve_place(options.bundle, root),
        histories=histories,
        domain=options.domain,
        output=resolve(options.output, root),
        k=options.k,
        exclude_seen=not options.with_seen,
        shard_users=options.shard_users,
        stream_past_window=options.stream_past_window,
    )


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(
        "jobs/recommend.py",
        __doc__,
        usage="%(prog)s --bundle DIR --domain NAME\n"
        "           (--run DIR | --histories FILE) --output DIR",
    )
    parser.add_argument(
        "--bundle", required=True, metavar="DIR", help="what pipeline.export wrote, or s3://..."
    )
    parser.add_argument("--domain", required=True, metavar="NAME", help="whose items")
    users = parser.add_mutually_exclusive_group(required=True)
    users.add_argument("--run", type=Path, metavar="DIR", help="the users of this finished run")
    users.add_argument("--histories", type=Path, metavar="FILE", help="the users of this file")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="where the files go; like all folders here relative to the project",
    )
    parser.add_argument("--k", type=int, default=10, metavar="N", help="items a user (default: 10)")
    parser.add_argument("--with-seen", action="store_true", help="recommend what a user had, too")
    parser.add_argument(
        "--stream-past-window",
        action="store_true",
        help="read whole histories, past the events that the model was trained with",
    )
    parser.add_argument(
        "--shard-users",
        type=int,
        default=10_000,
        metavar="N",
        help="users of a file (default: 10000)",
    )
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="actors side by side (default: 2)"
    )
    parser.add_argument(
        "--in-process", action="store_true", help="one after another here, without a Ray"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
