"""jobs/tune.py on a real Ray: what it leaves, that its best config runs, and that it goes on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from jobs import multidomain
from jobs.tune import main
from pipeline.config import load
from pipeline.interrupts import family

ROOT = Path(__file__).resolve().parents[2]
SHOP = {"format": "simulated", "population": 300, "items": 50, "mean_history": 6}
TRAINING = {"epochs": 4, "negatives": 16, "warmup_steps": 2, "min_epoch_steps": 4}
LR, DIM = "user_model.training.lr", "user_model.dim"


class Workplace:
    """A folder with a run's config and a search's file."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "out"
        self.config, self.space = folder / "run.yaml", folder / "space.yaml"
        domains = [
            {"name": "books", "source": SHOP | {"catalogue": "books", "share": 0.8}},
            {"name": "garden", "source": SHOP | {"catalogue": "garden", "share": 0.4}},
        ]
        content = {
            "name": "tiny",
            "store": str(folder / "store"),
            "domains": domains,
            "models": ["popularity"],
            "user_model": {"dim": 16, "layers": 1, "training": TRAINING},
        }
        self.config.write_text(yaml.safe_dump(content))
        self.write_space()

    def write_space(self, **fields):
        # A rate that learns nothing beside good ones, so that there is something to stop.
        space = {LR: {"choice": [1e-9, 1e-3, 1e-2]}, DIM: {"choice": [16, 24]}}
        content = {"model": "hydra_ids", "trials": 4, "grace_epochs": 1, "reduction": 2}
        self.space.write_text(yaml.safe_dump(content | {"space": space} | fields))

    @property
    def options(self):
        return [
            *("--config", str(self.config), "--space", str(self.space), "--out", str(self.out)),
        ]

    def results(self):
        return json.loads((self.out / "tune.json").read_text())

    def records(self):
        """What the trials have written so far, by number."""
        paths = sorted((self.folder / "store" / ".work").glob("tune*/.scratch/trials/*/trial.json"))
        return {record["number"]: record for record in map(_read, paths)}


def _read(path):
    return json.loads(path.read_text())


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path)


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
def test_a_search_leaves_its_trials_and_a_config_that_runs(workplace, capsys):
    assert main(workplace.options) == 0
    told = capsys.readouterr().out.splitlines()
    results = workplace.results()
    trials, best = results["trials"], results["best"]
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3]
    assert all(trial["status"] in ("complete", "stopped") for trial in trials)
    assert best == max(trials, key=lambda trial: trial["ndcg@10"])
    assert best["values"][LR] > 1e-9
    for trial in trials:
        assert trial["epochs"] == sum(domain["epochs"] for domain in trial["domains"].values())
        if trial["status"] == "complete":
            assert trial["rungs"].keys() == {"1", "2", "4"}
        assert trial["seconds"] > trial["cpu_seconds"] * 0.5 > 0
    budget = results["budget"]
    assert budget["trials"] == 4
    for name in ("epochs", "seconds", "cpu_seconds"):
        assert budget[name] == pytest.approx(sum(trial[name] for trial in trials), abs=0.01)
    assert results["resources"] == {
        "cpus_per_trial": 1,
        "gpus_per_trial": 0.0,
        "trials_at_once": 2,
    }
    assert all(len(line) <= 80 for line in told if str(workplace.folder) not in line), told

    tuned = load(workplace.out / "best.yaml")
    assert (tuned.name, tuned.models) == ("tiny-tuned", ("popularity", "hydra_ids"))
    assert tuned.user_model.training.lr == best["values"][LR]
    assert tuned.user_model.dim == best["values"][DIM]
    run = ["--config", str(workplace.out / "best.yaml"), "--run-dir", str(workplace.folder / "run")]
    assert multidomain.main(run) == 0
    curves = _read(workplace.folder / "run" / "curves.json")
    for domain, told_of in best["domains"].items():
        figures = [point["ndcg@10"] for point in curves["user_models"]["hydra_ids"][domain]]
        assert max(figures) == told_of["ndcg@10"], "the run trains as the trial did, bit for bit"

    (workplace.out / "tune.json").unlink()
    assert main(workplace.options) == 0
    assert "tune.hydra_ids: reused" in capsys.readouterr().out
    assert workplace.results() == results


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
def test_where_all_trials_fail_the_first_reason_is_told(workplace, capsys):
    content = yaml.safe_load(workplace.config.read_text())
    times = "user_id,item_id\n" + "".join(f"u{n // 5},i{n % 7}\n" for n in range(100))
    (workplace.folder / "events.csv").write_text(times)
    source = {
        "format": "table",
        "interactions": str(workplace.folder / "events.csv"),
        "columns": {"timestamp": None},
    }
    content["domains"] = [{"name": "untimed", "source": source}]
    content["hstu"] = {"dim": 16, "layers": 1, "training": TRAINING}
    workplace.config.write_text(yaml.safe_dump(content))
    workplace.write_space(
        model="hstu_time", trials=2, space={"hstu.dropout": {"uniform": [0.1, 0.5]}}
    )
    assert main(workplace.options) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert sentence.startswith("error: all 2 trials failed, the first with ValueError: models: ")
    assert "the domain untimed has none" in sentence


def kill_worker_once_at_a_rung(workplace):
    """Kill the process of the running trial, which is one of this process's own Ray."""
    while not workplace.records().get(0, {}).get("rungs"):
        time.sleep(0.05)
    for process in family(os.getpid())[1]:
        with contextlib.suppress(OSError):
            if b"ImplicitFunc" in Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("max_failures", [0, 1])
def test_a_trial_whose_worker_dies(max_failures, workplace, capsys):
    workplace.write_space(trials=1, space={LR: {"choice": [1e-3]}})
    length = ["--user-model.training.epochs", "8", "--user-model.training.min-epoch-steps", "60"]
    failures = ["--compute.max-failures", str(max_failures)]
    killer = threading.Thread(target=kill_worker_once_at_a_rung, args=(workplace,), daemon=True)
    killer.start()
    status = main([*workplace.options, *length, *failures])
    told = capsys.readouterr()
    if max_failures:
        assert status == 0
        assert "the worker of trial 0 died; the trial is started again" in told.out
        (trial,) = workplace.results()["trials"]
        assert trial["status"] == "complete"
        assert trial["rungs"].keys() == {"1", "2", "4", "8"}
    else:
        assert status == 2
        assert "error: all 1 trials failed, the first with its worker died" in told.err


def test_mistakes_are_told_before_anything_is_made(workplace, capsys):
    workplace.write_space(space={"user_model.dims": {"choice": [16]}})
    assert main(workplace.options) == 2
    assert "did you mean `user_model.dim`?" in capsys.readouterr().err
    assert not (workplace.folder / "store").exists()
    assert not workplace.out.exists()


def before_its_first_rung(record):
    """One domain is trained that far and the other is not, so ASHA cannot have stopped it yet."""
    return record is not None and record["tasks"]["books"]["epochs"] > 0


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_search_that_was_interrupted_goes_on(workplace):
    workplace.write_space(trials=3)
    command = [sys.executable, "jobs/tune.py", *workplace.options, "--compute.workers", "1"]
    command += ["--user-model.training.min-epoch-steps", "40"]
    log = workplace.folder / "log.txt"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
        )
        while process.poll() is None and not before_its_first_rung(workplace.records().get(1)):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT, log.read_text()
    assert "Give the same command again to go on." in log.read_text().splitlines()
    before = workplace.records()
    assert before[0]["status"] == "complete"
    assert before[1]["status"] == "running"

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tune.hydra_ids: resumed" in done.stdout
    trials = workplace.results()["trials"]
    assert trials[0]["cpu_seconds"] == round(before[0]["cpu_seconds"], 3), "it is not run again"
    assert "1" in trials[1]["rungs"]
    assert {trial["status"] for trial in trials} <= {"complete", "stopped"}
    assert not list((workplace.folder / "store" / ".work").iterdir())
