import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from pipeline.progress import Progress
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.launch import run_in_group, run_in_one_worker
from pipeline.workers.progress_board import Reporter
from pipeline.workers.work import Member

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
COMPUTE = ComputeConfig(workers=2)


def add_ranks(settings: Mapping[str, Any], member: Member, report: Reporter) -> dict[str, Any]:
    import torch

    total = torch.tensor([float(member.rank + settings["offset"])])
    if member.size > 1:
        dist.all_reduce(total)
    report(1, 1, "sums")
    return {"total": total.item(), "size": member.size, "backend": _backend(member)}


def _backend(member: Member) -> str:
    return dist.get_backend() if member.size > 1 else "none"


def tell_process(settings: Mapping[str, Any], member: Member, report: Reporter) -> dict[str, Any]:
    return {"pid": os.getpid()}


def hold(settings: Mapping[str, Any], member: Member, report: Reporter) -> None:
    bytearray(settings["mib"] * 2**20).count(1)


def complain_once(settings: Mapping[str, Any], member: Member, report: Reporter) -> None:
    with Path(settings["attempts"]).open("a") as stream:
        stream.write("attempt\n")
    raise ValueError("the loss is not finite at step 3")


def die_once(settings: Mapping[str, Any], member: Member, report: Reporter) -> dict[str, Any]:
    marker = Path(settings["marker"])
    if member.rank == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return add_ranks({"offset": 0}, member, report)


@pytest.fixture
def stage_progress():
    with Progress().stage("test") as progress:
        yield progress


def test_group_shares_one_gloo_process_group(stage_progress):
    facts = run_in_group(add_ranks, {"offset": 10}, COMPUTE, stage_progress)
    assert facts["total"] == 10 + 11
    assert (facts["size"], facts["backend"]) == (2, "gloo")
    assert facts["peak_mb"] > 50


def test_one_worker_gets_rank_0_of_1(stage_progress):
    facts = run_in_one_worker(add_ranks, {"offset": 10}, COMPUTE, stage_progress)
    assert (facts["total"], facts["size"]) == (10.0, 1)


@pytest.mark.faults
@pytest.mark.parametrize(("run", "most"), [(run_in_group, COMPUTE.workers), (run_in_one_worker, 1)])
def test_user_errors_reach_the_driver_as_they_are_and_are_not_retried(
    run, most, stage_progress, tmp_path
):
    attempts = tmp_path / "attempts"
    with pytest.raises(ValueError, match="the loss is not finite at step 3"):
        run(complain_once, {"attempts": str(attempts)}, COMPUTE, stage_progress)
    assert 1 <= attempts.read_text().count("attempt") <= most  # started again, there were more


def test_a_group_is_kept_for_the_next_work_and_dismissed_where_it_is_in_the_way(stage_progress):
    pids = [run_in_group(tell_process, {}, COMPUTE, stage_progress)["pid"] for _ in range(2)]
    run_in_one_worker(add_ranks, {"offset": 0}, COMPUTE, stage_progress)  # there is room beside it
    pids.append(run_in_group(tell_process, {}, COMPUTE, stage_progress)["pid"])
    assert len(set(pids)) == 1
    wide = ComputeConfig(workers=2, cpus_per_worker=2)  # all of the four that tests have at least
    facts = run_in_group(add_ranks, {"offset": 0}, wide, stage_progress)
    assert facts["total"] == 1


def test_a_peak_is_that_of_the_work_and_not_of_what_its_process_did_before(stage_progress):
    large, small = (
        run_in_group(hold, {"mib": mib}, COMPUTE, stage_progress)["peak_mb"] for mib in (300, 0)
    )
    assert large > small + 200


@pytest.mark.faults
def test_a_killed_worker_is_started_again(stage_progress, tmp_path):
    facts = run_in_group(die_once, {"marker": str(tmp_path / "died")}, COMPUTE, stage_progress)
    assert (tmp_path / "died").exists()
    assert facts["total"] == 1


def test_in_process_there_is_no_other_process(stage_progress):
    here = ComputeConfig(workers=1, in_process=True)
    for run in (run_in_group, run_in_one_worker):
        assert run(tell_process, {}, here, stage_progress)["pid"] == os.getpid()


def test_in_process_is_one_worker():
    with pytest.raises(ValueError, match="workers is 2: set workers to 1"):
        ComputeConfig(workers=2, in_process=True)
