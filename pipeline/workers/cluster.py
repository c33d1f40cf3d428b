"""Joining a Ray: the one that the job was submitted to, or a new one on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.interrupts import Interrupted, kept_handlers
from pipeline.workers.deaf_children import deaf_children, ending_those_told_to
from pipeline.workers.stopping_here import stopped_here

# Two training workers, Ray Train's controller and a Ray Data actor must be schedulable at once,
# even where there are two cores: these are slots for Ray's scheduler, not cores.
_LEAST_CPUS = 4
# Ray reads these in the driver. A first start of two training workers takes 27 s on a quiet machine
# of two cores and 60 s on a busy one; Ray Train's default of 30 s would call that a failure.
_RAY_DEFAULTS = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_raylet_start_wait_time_s": "240",  # a Ray of one's own; why, see `local_ray`
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Ray Data's actors always log an error of Ray's core about restarts, which tells a user
    # nothing; what really goes wrong there arrives as a Python exception.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
# How long a run that was told to stop waits until its trainings have written a checkpoint; what
# stops it (Kubernetes, Slurm) kills it after 30 s.
_CHECKPOINT_SECONDS = 15.0
# Says on every start that the token is on: as it should be.
_CHATTY = ("ray._private.authentication.authentication_token_setup", "ray.data")


class ComputeConfig(BaseModel):
    """What a run may use of the Ray it runs on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int = Field(2, ge=1, description="training workers side by side")
    cpus_per_worker: int = Field(1, ge=1, description="cores (and threads) of each worker")
    gpus_per_worker: float = Field(
        0.0, ge=0, description="GPUs of each worker; 0: train on the CPU with gloo"
    )
    max_failures: int = Field(
        3, ge=0, description="how often a killed group of workers is started again"
    )
    in_process: bool = Field(
        False,
        description="run everything in the driver's own process, without a Ray; for debugging, "
        "with workers: 1",
    )
    worker_logs: bool = Field(False, description="show what the workers print (for debugging)")

    @model_validator(mode="after")
    def _one_process_is_one_worker(self) -> Self:
        if self.in_process and self.workers != 1:
            raise ValueError(
                f"in_process runs one worker, and workers is {self.workers}: set workers to 1"
            )
        return self

    @property
    def backend(self) -> str:
        """The process group's backend: nccl between GPUs, gloo between CPUs."""
        return "nccl" if self.gpus_per_worker else "gloo"


@contextmanager
def connected(compute: ComputeConfig) -> Iterator[None]:
    """Hold a connection to Ray for the length of the block.

    Inside a submitted job, or with RAY_ADDRESS set, that Ray is joined; else one is started on
    this machine and ended with the block. Its processes do not heed a SIGTERM that Slurm or systemd
    sends to all of a job: they are needed until trainings have written their checkpoints. With
    `in_process` there is none. After `Interrupted` the process must leave by `interrupts.leave`,
    which ends the workers with it.
    """
    if compute.in_process:
        with stopped_here(_CHECKPOINT_SECONDS):
            yield
        return
    for name, value in _RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    import ray

    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():  # a caller's own connection (a notebook, a test session) stays
        with _group_leaves():
            yield
        return
    own = {} if os.environ.get("RAY_ADDRESS") else _own_ray()
    with kept_handlers(), deaf_children():
        ray.init(
            log_to_driver=compute.worker_logs,
            logging_level=logging.WARNING,
            **own,
        )
    try:
        with _group_leaves():
            yield
    except Interrupted:
        from pipeline.workers.progress_board import stop_work

        stop_work(_CHECKPOINT_SECONDS)
        raise  # without a shutdown: see `interrupts.leave`
    except BaseException:
        _shut_down()
        raise
    _shut_down()


def _shut_down() -> None:
    import ray

    with ending_those_told_to():
        ray.shutdown()


@contextmanager
def _group_leaves() -> Iterator[None]:
    """At the end of the block no training group is left; an interrupted process just goes."""
    from pipeline.workers.group import dismiss_group

    yield
    dismiss_group()


def _own_ray() -> dict[str, object]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return {
        "num_cpus": max(_LEAST_CPUS, os.cpu_count() or 1),
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
        "object_store_memory": 300 * 2**20,
    }
