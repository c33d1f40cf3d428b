"""Ctrl-C and SIGTERM in the middle of training: the same command goes on to the same figures."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.tracking.jsonl import TRACKING, read_records
from tests.sessions import expect_none_left

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


class Interruptible:
    """The job on a Ray that it starts itself, in a session of its own as in a terminal."""

    def __init__(self, workplace, name, *options):
        self.run_dir = workplace.folder / "runs" / name
        self.command = [
            *(sys.executable, "jobs/multidomain.py", "--config", str(workplace.config)),
            *("--run-dir", str(self.run_dir), "--store", str(workplace.folder / f"{name}-store")),
            *options,
        ]
        self.log = workplace.folder / f"{name}.log"

    @property
    def tracking(self):
        return self.run_dir / TRACKING

    def start(self):
        with self.log.open("w") as log:
            return subprocess.Popen(
                self.command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    def stop_at(self, stage, step, number):
        """Send a signal to the whole group once a stage has logged a step; the exit status."""
        known = len(self.lines())
        process = self.start()
        while process.poll() is None and not any(
            record["stage"].startswith(stage) and (record["step"] or 0) >= step
            for record in self.lines()[known:]
            if record["event"] == "log"
        ):
            time.sleep(0.1)
        if process.poll() is not None:
            pytest.fail(f"it ended by itself, {process.returncode}: {self.log.read_text()}")
        os.killpg(process.pid, number)
        status = process.wait(30)
        expect_none_left(process.pid)
        return status

    def lines(self):
        if not self.tracking.is_file():
            return []
        whole = self.tracking.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]


@pytest.fixture
def job(workplace):
    return Interruptible(workplace, "interrupted")


def test_interrupted_twice_the_run_ends_with_the_same_figures(job, first_run, workplace):
    assert job.stop_at("item_llm", 3, signal.SIGINT) == 128 + signal.SIGINT
    last = job.log.read_text().splitlines()[-2:]
    assert last == [
        "stopped by SIGINT; what is finished is kept, training with its checkpoint.",
        "Give the same command again to go on.",
    ]
    assert "Traceback" not in job.log.read_text()
    assert job.lines()[-1]["status"] == "interrupted"
    assert not (job.run_dir / "metrics.json").exists()

    assert job.stop_at("train.", 1, signal.SIGTERM) == 128 + signal.SIGTERM
    assert "item_llm: resumed" in job.log.read_text()
    assert "stopped by SIGTERM" in job.log.read_text()

    assert job.start().wait(500) == 0, job.log.read_text()
    assert "item_llm: reused" in job.log.read_text()
    assert (job.run_dir / "metrics.json").read_bytes() == first_run.metrics

    steps = json.loads((job.run_dir / "curves.json").read_text())["item_llm"]["steps"]
    assert [point["step"] for point in steps] == list(range(1, 9)), "the curve is whole"
    assert [line["status"] for line in job.lines() if line["event"] == "end"] == [
        "interrupted",
        "interrupted",
        "finished",
    ]
    final = [record for record in read_records(job.tracking) if record.stage == "metrics"][-1]
    metrics = json.loads(first_run.metrics)
    expected = metrics["domains"]["books"]["models"]["hydra_joint"]["ndcg@10"]
    assert final.figures.values["books/hydra_joint/ndcg@10"] == expected


def test_interrupted_in_the_middle_of_a_candidate_the_finished_ones_are_kept(workplace):
    training = "{dim: 16, training: {epochs: 60, negatives: 32}, candidates: {dropout: [0.1, 0.4]}}"
    settings = yaml.safe_load(workplace.config.read_text())
    settings |= {"models": ["sasrec"], "sasrec": yaml.safe_load(training)}
    settings["domains"] = settings["domains"][:1]
    workplace = replace(workplace, folder=workplace.folder / "candidates")
    workplace.folder.mkdir()
    workplace.config.write_text(yaml.safe_dump(settings))
    alone = ("--compute.workers", "1")  # one candidate after the other
    job = Interruptible(workplace, "stopped", *alone)
    assert job.stop_at("try.sasrec.books.dropout=0.4", 1, signal.SIGTERM) == 128 + signal.SIGTERM
    assert "try.sasrec.books.dropout=0.1: ran" in job.log.read_text()
    assert job.start().wait(500) == 0, job.log.read_text()
    assert "try.sasrec.books.dropout=0.1: reused" in job.log.read_text()
    assert "try.sasrec.books.dropout=0.4: resumed" in job.log.read_text()
    assert "SASRec: dropout=" in job.log.read_text()
    whole = Interruptible(workplace, "whole", *alone)
    assert whole.start().wait(500) == 0, whole.log.read_text()
    found, expected = ((run.run_dir / "metrics.json").read_bytes() for run in (job, whole))
    assert found == expected
