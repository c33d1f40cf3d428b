"""benchmarks.pipeline compares equals and its table has every stage."""

import json
import os
import subprocess
import sys
import time

import pytest

from benchmarks import pipeline
from benchmarks.process_tree import ProcessTree
from pipeline.config import RunConfig
from pipeline.paths import data_root
from pipeline.recipe import RecipeBuilder
from pipeline.stages import in_order


def run(capsys, *arguments):
    """Run it: the exit status and the JSON."""
    status = pipeline.main(list(arguments))
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


def check_report(report, stages):
    parts = {row["part"]: row for row in report["rows"] if row["section"] == "part"}
    assert stages < set(parts)
    assert all(len(row["one_process"]) == len(row["ray"]) for row in parts.values())
    assert parts["Ray's start"]["one_process"] == [0.0]
    assert parts["Ray's start"]["ray"][0] > 1
    measured = sum(row["ray"][0] for name, row in parts.items() if not name.startswith("all"))
    assert measured == pytest.approx(parts["all"]["ray"][0], abs=0.5)  # nothing is left out
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["metrics.json that differ"]["ok"]
    return checks


@pytest.mark.timeout(600)
def test_metrics_are_the_same_and_every_stage_is_in_the_table(capsys, tmp_path):
    config = RunConfig.model_validate(pipeline.TINY)
    stages = in_order(RecipeBuilder(config, data_root(), tmp_path).build().targets)
    status, report = run(capsys, "--quick", "--repetitions", "1")
    checks = check_report(report, {stage.name for stage in stages})
    assert status == int(not all(check["ok"] for check in checks.values()))


@pytest.mark.slow
@pytest.mark.timed
@pytest.mark.timeout(3600)
def test_the_demo_meets_its_bars(capsys):
    status, report = run(capsys, "--repetitions", "1")
    checks = check_report(report, {"item_llm", "train.hydra_joint", "metrics"})
    assert status == 0, checks


def test_overrides_and_parts_of_a_config():
    arguments, overrides = pipeline._parser().parse_known_args(
        ["--domains", "2", "--epochs", "3", "--user_model.dim", "8"]
    )
    config = pipeline.chosen(arguments, overrides)
    assert [domain.name for domain in config.domains] == ["books", "games"]
    assert (config.user_model.training.epochs, config.sasrec.training.epochs) == (3, 3)
    assert config.user_model.dim == 8


def test_cpu_time_of_what_has_ended_counts_and_of_what_was_there_before_does_not():
    work = "import time\nwhile time.process_time() < {}: pass\n{}"
    before = subprocess.Popen([sys.executable, "-c", work.format(0.2, "time.sleep(60)")])
    try:
        time.sleep(1.0)
        with ProcessTree() as processes:
            child = work.format(1.0, "")
            outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
            subprocess.run([sys.executable, "-c", outer], check=True, env=os.environ)
        assert 0.6 < processes.total() < 1.6
    finally:
        before.kill()
        before.wait()
