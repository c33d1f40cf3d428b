"""Running a function on the cluster: in one worker, or in a group that trains together.

The function does the work and writes its results to files; Ray starts it, watches it, and starts
it again when a worker dies. Where to resume from is the function's own business (its checkpoints
have manifests of ours): Ray Train's own snapshot is written in place, and where it is missing a
run would silently begin at step 0.
"""

from __future__ import annotations

import os
import re
import resource
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ray

from pipeline.progress import StageProgress
from pipeline.storage.site import Site
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.progress_board import Reporter, reporter_to


class Member(NamedTuple):
    """Who a worker is within its group: rank 0 <= rank < size."""

    rank: int
    size: int


# What runs on a worker: settings -> facts for the run card. Top-level functions only: they are
# imported by name on the worker. With a site, `folders` of the settings are the stage's folders on
# the worker's machine.
Work = Callable[[Mapping[str, Any], Member, Reporter], Mapping[str, Any] | None]


def run_in_one_worker(
    work: Work,
    settings: Mapping[str, Any],
    compute: ComputeConfig,
    progress: StageProgress,
    site: Site | None = None,
) -> dict[str, Any]:
    """Run `work` in one Ray task; returns its facts and its peak memory.

    Args:
        work: what to run.
        settings: given to it.
        compute: the size of a worker.
        progress: told how far it is.
        site: how it finds its stage's folders; None: it has none.

    Raises:
        Exception: what `work` raised, as it was raised.
    """
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
    """Run `work` on all training workers at once (Ray Train), in one process group.

    The arguments are those of `run_in_one_worker`. Returns the facts of rank 0.

    Raises:
        ValueError: what `work` raised, if it is the user's to mend.
        RuntimeError: the group failed more often than `compute.max_failures`.
    """
    from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError

    # Ray Train wants a folder of its own; nothing in it is ever read back.
    with (
        tempfile.TemporaryDirectory(prefix="hydrarec-train-") as folder,
        reporter_to(progress) as report,
    ):
        config = {"work": work, "settings": dict(settings), "site": site, "report": report}
        for attempt in range(compute.max_failures + 1):
            try:
                _trainer(config, compute, folder).fit()
                if site is not None:
                    site.collect(progress.update)
                return report.facts()
            except TrainingFailedError as error:
                if complaint := report.complaint():
                    raise ValueError(complaint) from error
                # A worker that dies while its group is still starting is an error of Ray Train's
                # controller, which it does not retry; other deaths it has retried already.
                last = attempt == compute.max_failures
                if last or not isinstance(error, ControllerError):
                    raise RuntimeError(f"the training workers failed: {error}") from error
                progress.note("a worker died while the group was starting; it is started again")
    raise AssertionError("the loop returns or raises")


def _trainer(config: dict[str, Any], compute: ComputeConfig, folder: str) -> Any:
    """A Ray Train group under a fresh name, so that no earlier snapshot is ever looked at."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(
        _group_member,
        train_loop_config=config | {"threads": compute.cpus_per_worker},
        torch_config=TorchConfig(backend=compute.backend),
        scaling_config=ScalingConfig(
            num_workers=compute.workers,
            use_gpu=compute.gpus_per_worker > 0,
            resources_per_worker=_resources(compute),
        ),
        run_config=RunConfig(
            name=f"group-{uuid.uuid4().hex[:12]}",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=compute.max_failures),
        ),
    )


def _resources(compute: ComputeConfig) -> dict[str, float]:
    wanted: dict[str, float] = {"CPU": compute.cpus_per_worker}
    if compute.gpus_per_worker:
        wanted["GPU"] = compute.gpus_per_worker
    return wanted


def _task(
    work: Work, settings: Mapping[str, Any], site: Site | None, report: Reporter, threads: int
) -> dict[str, Any]:
    prepare_process(threads)
    facts = _run(work, settings, site, Member(0, 1), report)
    report.settle()
    return facts | {"peak_mb": _peak_mb()}


def _group_member(config: Mapping[str, Any]) -> None:
    import ray.train

    prepare_process(config["threads"])
    context = ray.train.get_context()
    member = Member(context.get_world_rank(), context.get_world_size())
    report: Reporter = config["report"]
    # A ValueError is the user's to mend, so starting again is of no use: the first attempt leaves
    # its sentence on the board, and the later ones end at once.
    if complaint := report.complaint():
        raise ValueError(complaint)
    try:
        facts = _run(config["work"], config["settings"], config["site"], member, report)
    except ValueError as error:
        report.complain(str(error))
        raise
    report.settle()
    if member.rank == 0:  # by way of the board: Ray Train keeps metrics only with a checkpoint
        report.keep(facts | {"peak_mb": _peak_mb()})


def _run(
    work: Work, settings: Mapping[str, Any], site: Site | None, member: Member, report: Reporter
) -> dict[str, Any]:
    if site is None:
        return dict(work(settings, member, report) or {})
    with site.folders(member.rank, report) as folders:
        return dict(work({**settings, "folders": folders}, member, report) or {})


def prepare_process(threads: int) -> None:
    """Give a worker's process its threads; keep DeepSpeed from looking for an absent GPU."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    torch.set_num_threads(threads)


def _peak_mb() -> float:
    """The process's own peak; ru_maxrss may be that of the process that started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        kib = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        assert kib is not None
        return round(int(kib[1]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
