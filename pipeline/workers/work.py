"""A piece of work on a worker: what it is given, how its process is prepared, what it answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pipeline.resident_memory import forget_peak, peak_bytes
from pipeline.storage.site import Site
from pipeline.workers.progress_board import Reporter


class Member(NamedTuple):
    """Who a worker is within its group: rank 0 <= rank < size."""

    rank: int
    size: int


# What runs on a worker: settings -> facts for the run card. Top-level functions only: they are
# imported by name on the worker. With a site, `folders` of the settings are the stage's folders on
# the worker's machine.
Work = Callable[[Mapping[str, Any], Member, Reporter], Mapping[str, Any] | None]


def done(
    work: Work, settings: Mapping[str, Any], site: Site | None, member: Member, report: Reporter
) -> dict[str, Any]:
    """Do it, at its site; its facts, and the peak memory of its process while it ran."""
    forget_peak()  # of other work that the process has done
    if site is None:
        facts = dict(work(settings, member, report) or {})
    else:
        with site.folders(member.rank, report) as folders:
            facts = dict(work({**settings, "folders": folders}, member, report) or {})
    return facts | {"peak_mb": round(peak_bytes() / 2**20, 1)}


def prepare_process(threads: int) -> None:
    """Give a worker's process its threads; keep DeepSpeed from looking for an absent GPU."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    torch.set_num_threads(threads)
