"""SIGKILL of a job's driver, or of one of its workers, on a real Ray of its own.

tests/pipeline/faults/test_killed_drivers.py kills drivers without a Ray, at exact touches of files.
A node that dies is in test_nodes.py.
"""

import os
import re
import signal
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.jobs.test_interrupt import Interruptible
from tests.pipeline.faults.fatal_touch import COMMIT, RESULTS
from tests.sessions import expect_none_left, processes_of

pytestmark = [
    *(pytest.mark.ray, pytest.mark.faults, pytest.mark.slow),
    pytest.mark.timeout(2400),
]
# Where a run of two workers is killed: once a stage has saved a checkpoint of so many steps, at the
# first touch of its files (0), or at the touch by which its output would take its place. Each point
# comes before the next one, whichever of the models that train side by side is the faster.
POINTS = (
    *(("corpus", COMMIT), ("item_llm", 2), ("item_llm", 4), ("item_llm", COMMIT), ("vectors", 0)),
    *(("train.sasrec.books", COMMIT), ("rank.sasrec.books", 0)),
    *(("train.hydra_joint", 0), ("train.hydra_joint", COMMIT), ("rank.hydra_joint", 0)),
    *(("metrics", 0), (RESULTS, 0)),
)
DONE = re.compile(r"^ *\[\d+/\d+\] (\S+): (ran|resumed)", re.MULTILINE)


class Killable(Interruptible):
    """A job that is killed without a warning."""

    def __init__(self, workplace, name, *options):
        super().__init__(workplace, name, *options)
        self.store = workplace.folder / f"{name}-store"
        self.said = ""

    def reached(self, stage, step):
        """Whether a stage has logged a step."""
        return any(
            record["stage"].startswith(stage) and (record["step"] or 0) >= step
            for record in self.lines()
            if record["event"] == "log"
        )

    def saved(self, stage, step):
        """Whether a stage has a checkpoint of so many steps or more."""
        found = self.store.glob(f".work/{stage}-*/.scratch/checkpoints/step-*")
        return any(int(path.name.removeprefix("step-")) >= step for path in found)

    def kill_at(self, stage, at):
        """SIGKILL of the driver alone; whether it came there before its end."""
        steps = at not in (0, COMMIT)
        with nullcontext() if steps else self.dying_at(stage, at):
            process = self.start()
        while process.poll() is None and not (steps and self.saved(stage, at)):
            time.sleep(0.02)
        process.kill()
        status = process.wait(30)
        self.said += self.log.read_text()
        expect_none_left(process.pid, but="Agent")  # Ray's look for their Ray for a minute
        return status == -signal.SIGKILL

    @contextmanager
    def dying_at(self, stage, at):
        """What is started here kills itself at a touch of a stage's files."""
        alive = self.command
        told = (str(self.store), str(self.run_dir), stage, str(at))
        self.command = [alive[0], "-m", "tests.jobs.dying_driver", *told, *alive[2:]]
        yield
        self.command = alive


def test_a_driver_killed_in_every_stage_ends_with_the_same_figures(workplace, first_run):
    job = Killable(workplace, "killed")
    for point in POINTS:
        assert job.kill_at(*point), f"it was over before it came to {point}"
    assert job.start().wait(900) == 0, job.log.read_text()
    job.said += job.log.read_text()
    assert (job.run_dir / "metrics.json").read_bytes() == first_run.metrics
    made = DONE.findall(job.said)
    assert len(made) == len({name for name, _ in made}), "a finished stage was made again"
    print(f"{len(POINTS)} kills of the driver; finished stages made again: 0")


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_worker_killed_in_the_middle_changes_no_figure(workplace, stage):
    """Ray Train starts the group again, and it goes on from the last checkpoint."""
    options = ("--item_llm.finetuning.zero_stage", str(stage), "--models", "hydra_joint")
    left_alone = Killable(workplace, f"zero-{stage}", *options)
    assert left_alone.start().wait(600) == 0, left_alone.log.read_text()
    job = Killable(workplace, f"zero-{stage}-killed", *options)
    process = job.start()
    killed = []
    for point in (("item_llm", 2), ("item_llm", 6), ("train.hydra_joint", 1)):
        while process.poll() is None and not job.reached(*point):
            time.sleep(0.02)
        killed += kill_a_worker(process.pid, killed)
    assert process.wait(900) == 0, job.log.read_text()
    assert (job.run_dir / "metrics.json").read_bytes() == (
        left_alone.run_dir / "metrics.json"
    ).read_bytes()
    assert len(killed) >= 2
    print(f"{len(killed)} kills of workers at ZeRO {stage}")


def kill_a_worker(session, before):
    """SIGKILL of a training worker of the job, if one is there that has not been killed yet."""
    found = [pid for pid, args in processes_of(session).items() if "RayTrainWorker" in args]
    for pid in sorted(set(found) - set(before), reverse=True)[:1]:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)
            return [pid]
    return []
