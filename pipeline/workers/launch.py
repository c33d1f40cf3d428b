"""Running a function on the cluster: in one worker, or in a group that trains together.

The function does the work and writes its results to files; Ray starts it, watches it, and starts
it again when a worker dies. Where to resume from is the function's own business (its checkpoints
have manifests of ours): Ray Train's own snapshot is written in place, and where it is missing a
run would silently begin at step 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray

from pipeline.progress import StageProgress
from pipeline.storage.site import Site
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.group import dismiss_group, kept_group
from pipeline.workers.in_process import reporting_here
from pipeline.workers.progress_board import BoardReporter, reporter_to
from pipeline.workers.work import Member, Work, done, prepare_process

_ALONE = Member(0, 1)


def run_in_one_worker(
    work: Work,
    settings: Mapping[str, Any],
    compute: ComputeConfig,
    progress: StageProgress,
    site: Site | None = None,
) -> dict[str, Any]:
    """Run `work` in one Ray task, or here; returns its facts and its peak memory.

    Args:
        work: what to run.
        settings: given to it.
        compute: the size of a worker.
        progress: told how far it is.
        site: how it finds its stage's folders; None: it has none.

    Raises:
        Exception: what `work` raised, as it was raised.
    """
    if compute.in_process:
        prepare_process(compute.cpus_per_worker)
        with reporting_here(progress) as report:
            facts = done(work, settings, site, _ALONE, report)
    else:
        dismiss_group(unless_room_beside=True)
        facts = _in_a_task(work, settings, compute, progress, site)
    if site is not None:
        site.collect(progress.update)
    return facts


def run_in_group(
    work: Work,
    settings: Mapping[str, Any],
    compute: ComputeConfig,
    progress: StageProgress,
    site: Site | None = None,
) -> dict[str, Any]:
    """Run `work` on all training workers at once, in one process group; or here.

    A group of one is one worker; a larger one is kept for the next work (see `group`).

    The arguments are those of `run_in_one_worker`. Returns the facts of rank 0.

    Raises:
        ValueError: what `work` raised, if it is the user's to mend.
        RuntimeError: the group failed more often than `compute.max_failures`.
    """
    if compute.workers == 1:
        return run_in_one_worker(work, settings, compute, progress, site)
    facts = kept_group(compute).run(work, settings, progress, site)
    if site is not None:
        site.collect(progress.update)
    return facts


def _in_a_task(
    work: Work,
    settings: Mapping[str, Any],
    compute: ComputeConfig,
    progress: StageProgress,
    site: Site | None,
) -> dict[str, Any]:
    task = ray.remote(_task).options(
        num_cpus=compute.cpus_per_worker,
        num_gpus=compute.gpus_per_worker,
        max_retries=compute.max_failures,
    )
    with reporter_to(progress) as report:
        try:
            facts: dict[str, Any] = ray.get(
                task.remote(work, dict(settings), site, report, compute.cpus_per_worker)
            )
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
    return facts


def _task(
    work: Work, settings: Mapping[str, Any], site: Site | None, report: BoardReporter, threads: int
) -> dict[str, Any]:
    prepare_process(threads)
    try:
        facts = done(work, settings, site, _ALONE, report)
    finally:
        report.leave()
    report.settle()
    return facts
