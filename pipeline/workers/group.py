"""A group of training workers (Ray Train) that is kept: it does one piece of work after another.

To start a group is to start a controller, its helpers and the workers, which import torch: 22 to 26
seconds of CPU for two workers that then do nothing. So the workers, once there, ask the driver's
board for work until they are dismissed: when somebody else needs what they hold, after a failure,
and at the end of the run.
"""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

import ray

from item_llm import finetune_result as llm_result
from pipeline.progress import StageProgress
from pipeline.storage.disk import disk_error
from pipeline.storage.site import Site
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.orders import Order, Orders
from pipeline.workers.progress_board import reporter_to
from pipeline.workers.work import Member, Work, done, prepare_process
from user_model import progress as user_progress

_LOOK_EVERY_SECONDS = 0.2
_END_SECONDS = 60.0

_lock = threading.Lock()
_kept: list[TrainingGroup] = []  # one at most


class TrainingGroup:
    """`compute.workers` workers in one process group; they start with the first work."""

    def __init__(self, compute: ComputeConfig) -> None:
        self.compute = compute
        self._orders = Orders()
        self._failure: Exception | None = None
        self._failed_starts = self._told = 0
        self._thread = threading.Thread(target=self._serve, name="training group", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it can be given work."""
        return self._thread.is_alive()

    def run(
        self,
        work: Work,
        settings: Mapping[str, Any],
        progress: StageProgress,
        site: Site | None = None,
    ) -> dict[str, Any]:
        """Have all workers do `work`; returns the facts of rank 0.

        Raises:
            ValueError: what `work` raised, if it is the user's to mend.
            RuntimeError: the group failed more often than `compute.max_failures`.
        """
        with reporter_to(progress) as report:
            self._orders.give(Order(work, dict(settings), site, report))
            while (facts := report.facts()) is None:
                self._thread.join(_LOOK_EVERY_SECONDS)
                if not self.alive:
                    self._raise(report.complaint())
                if report.complaint():  # started again, the workers would only repeat it
                    self._orders.close()
                self._tell_restarts(progress)
            self._orders.take_back()
        if self._orders.starts() > 1:  # each work may fail so often: the next one gets a new group
            dismiss_group()
        return facts

    def dismiss(self) -> None:
        """Have the workers leave, and wait for it."""
        self._orders.close()
        self._thread.join(_END_SECONDS)

    def _raise(self, complaint: Exception | None) -> None:
        if complaint is not None:
            raise complaint from self._failure
        raise RuntimeError(f"the training workers failed: {self._failure}") from self._failure

    def _tell_restarts(self, progress: StageProgress) -> None:
        if self._failed_starts > self._told:
            self._told = self._failed_starts
            progress.note("a worker died while the group was starting; it is started again")

    def _serve(self) -> None:
        from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError

        # Ray Train wants a folder of its own; nothing in it is ever read back.
        with tempfile.TemporaryDirectory(prefix="hydrarec-train-") as folder:
            while True:
                try:
                    _trainer(self._orders, self.compute, folder).fit()
                    return
                except (TrainingFailedError, ray.exceptions.RayError) as error:
                    self._failure = error
                    # A worker that dies while its group is still starting is an error of Ray
                    # Train's controller, which it does not retry; others it has retried already.
                    last = self._failed_starts == self.compute.max_failures
                    if last or not isinstance(error, ControllerError):
                        return
                    self._failed_starts += 1


def kept_group(compute: ComputeConfig) -> TrainingGroup:
    """The group that is there, or a new one."""
    with _lock:
        fits = _kept and _kept[0].alive and _kept[0].compute == compute
        if not fits:
            _dismiss()
            _kept.append(TrainingGroup(compute))
        return _kept[0]


def dismiss_group(*, unless_room_beside: bool = False) -> None:
    """End the group that is kept, if there is one.

    Args:
        unless_room_beside: keep it where the cluster has room for as many workers again.
    """
    with _lock:
        if not (_kept and unless_room_beside and _has_room_for_twice(_kept[0].compute)):
            _dismiss()


def _dismiss() -> None:
    while _kept:
        _kept.pop().dismiss()


def _has_room_for_twice(compute: ComputeConfig) -> bool:
    """Whether so many workers fit on the nodes, however they are spread."""
    wanted = _resources(compute)
    places = [
        min(int(node["Resources"].get(name, 0.0) // amount) for name, amount in wanted.items())
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sum(places) >= 2 * compute.workers


def _trainer(orders: Orders, compute: ComputeConfig, folder: str) -> Any:
    """A Ray Train group under a fresh name, so that no earlier snapshot is ever looked at."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(
        _group_member,
        train_loop_config={"orders": orders, "threads": compute.cpus_per_worker},
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


def _group_member(config: Mapping[str, Any]) -> None:
    import ray.train

    prepare_process(config["threads"])
    context = ray.train.get_context()
    member = Member(context.get_world_rank(), context.get_world_size())
    orders: Orders = config["orders"]
    if member.rank == 0:
        orders.started()
    number = 0
    while not (seen := orders.look()).closed:
        if seen.order is None or seen.number == number:
            time.sleep(_LOOK_EVERY_SECONDS)
        else:
            number = seen.number
            _do(Orders.read(seen.order), member)


def _do(order: Order, member: Member) -> None:
    work, settings, site, report = order
    if report.facts() is not None:  # a group started again after it was done
        return
    # A ValueError and a full disk are the user's to mend, so starting again is of no use: the first
    # attempt leaves its sentence on the board, and the later ones end at once.
    if complaint := report.complaint():
        raise complaint
    try:
        facts = done(work, settings, site, member, report)
    except Exception as error:
        if (complaint := _final(error)) is not None:
            report.complain(complaint)
        raise
    finally:
        if member.rank == 0:
            report.leave()
    report.settle()
    if member.rank == 0:  # by way of the board: Ray Train keeps metrics only with a checkpoint
        report.keep(facts)


def _final(error: Exception) -> Exception | None:
    """What the driver is to raise, if starting again would only lead to the same; else None."""
    if isinstance(error, ValueError):
        return ValueError(str(error))
    if isinstance(error, llm_result.StoppedError | user_progress.StoppedError):
        return RuntimeError(str(error))
    return disk_error(error, "the working folder")
