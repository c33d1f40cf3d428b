"""Help, plan and mistakes as a terminal of 80 columns and a pipe show them; nothing is run."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
name: small
store: {folder}/store
models: [popularity, sasrec, hydra_ids]
domains:
  - name: shop
    source: {{format: table, interactions: {folder}/events.csv}}
"""
ROWS = "".join(f"u{u},i{(u + k) % 7},{1000 + 10 * k}\n" for u in range(12) for k in range(5))


@pytest.fixture
def config(tmp_path):
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\n" + ROWS)
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return path


def in_pipe(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def in_terminal(*arguments):
    """The exit status and what a terminal of 80 columns is given."""
    primary, secondary = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=secondary, stderr=secondary
    )
    os.close(secondary)
    content = b""
    while True:
        try:
            block = os.read(primary, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        content += block
    os.close(primary)
    return process.wait(), content.decode().replace("\r\n", "\n")


def too_long(text):
    """Lines of more than 80 columns that are no paths."""
    return [line for line in text.splitlines() if len(line) > 80 and "/" not in line]


HELPS = [
    ["jobs/multidomain.py", "--help"],
    ["jobs/multidomain.py", "--config", "configs/demo.yaml", "--help"],
    ["-m", "pipeline.config", "--help"],
    ["-m", "pipeline.config", "show", "--help"],
    ["-m", "pipeline.config", "validate", "--help"],
]
HELPS += [[f"jobs/{path.name}", "--help"] for path in sorted((ROOT / "jobs").glob("[a-z]*.py"))]


@pytest.mark.parametrize("command", HELPS, ids=lambda command: " ".join(command))
def test_help_fits_80_columns(command):
    status, text, errors = in_pipe(*command)
    assert (status, errors) == (0, "")
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "\x1b" not in text
    status, shown = in_terminal(*command)
    assert status == 0
    assert [line for line in shown.splitlines() if len(line) > 80] == []


def test_help_of_the_main_job_has_every_field_with_its_default():
    _, text, _ = in_pipe("jobs/multidomain.py", "--help")
    for option in (
        "--user-model.training.lr NUMBER",
        "--item-llm.finetuning.zero-stage 0, 1, 2, 3",
        "--compute.workers INT",
        "--tracking.finish-seconds NUMBER",
        "domains.N.source.interactions TEXT",
        "domains.N.cleaning.k_core INT",
    ):
        assert f"  {option}\n" in text
    assert "Peak learning rate of AdamW [0.003]" in text
    _, of_file, _ = in_pipe("jobs/multidomain.py", "--config", "configs/demo.yaml", "--help")
    assert "  --name TEXT\n      the run's name, and its folder below runs/ [demo]" in of_file


def test_the_plan_tells_stages_and_sizes_and_writes_nothing(config, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    command = ["jobs/multidomain.py", "--config", str(config), "--run-dir", f"{tmp_path}/run"]
    status, text, errors = in_pipe(*command, "--plan")
    assert (status, errors) == (0, "")
    assert sorted(tmp_path.rglob("*")) == before
    assert too_long(text) == []
    stages = [line.split()[1:4] for line in text.splitlines() if line[:3].strip().isdigit()]
    assert stages == [
        ["corpus", "made", "1/2"],
        ["rank.popularity", "made", "1/2"],
        ["train.sasrec.shop", "made", "1/2"],
        ["rank.sasrec.shop", "made", "1/2"],
        ["train.hydra_ids.shop", "made", "1/2"],
        ["rank.hydra_ids.shop", "made", "1/2"],
        ["metrics", "made", "1/2"],
    ]
    size = (tmp_path / "events.csv").stat().st_size
    assert f"{size} B" in text
    assert "7 stages: 0 reused, 0 resumed, 7 made. Nothing was run." in text
    assert in_terminal(*command, "--plan") == (0, text)


def test_each_seed_of_a_transfer_evaluation_has_a_plan(config, tmp_path):
    command = ["jobs/evaluate_transfer.py", "--config", str(config), "--seeds", "0", "4"]
    status, text, errors = in_pipe(*command, "--run-dir", f"{tmp_path}/run", "--plan")
    assert (status, errors) == (0, "")
    assert too_long(text) == []
    heads = [line for line in text.splitlines() if line.startswith(("seed", "results"))]
    assert heads == [
        *("seed 0", f"results  {tmp_path}/run/seed-0"),
        *("seed 4", f"results  {tmp_path}/run/seed-4"),
    ]
    assert not (tmp_path / "run").exists()


def test_the_plan_for_eight_gpus_tells_what_each_will_hold():
    command = ["jobs/multidomain.py", "--config", "configs/h100x8.yaml", "--plan"]
    status, text, errors = in_pipe(*command, "--item-llm.encoder.base", "minilm")
    assert (status, errors) == (0, "")
    assert too_long(text) == []
    assert "on       8 workers, each with 12 cores and 1 GPU" in text
    rows = {line[:20].strip(): line[20:].split() for line in text.splitlines()}
    assert rows["memory of a worker"][-2:] == ["in", "all"]
    for training in ("item LLM, ZeRO 3", "hydra_joint"):
        *_, figure, unit = rows[training]
        assert unit == "GB"
        assert 0.5 < float(figure) < 70


@pytest.mark.parametrize("option", ["--plan", "--help"])
def test_a_reader_that_has_left_is_no_mistake(config, option):
    command = [sys.executable, "jobs/multidomain.py", "--config", str(config), option]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 141)
    process.stderr.close()


def test_the_plan_refuses_what_the_run_would_refuse(config, tmp_path):
    (tmp_path / "events.csv").unlink()
    status, _, errors = in_pipe("jobs/multidomain.py", "--config", str(config), "--plan")
    assert status == 2
    assert "events.csv" in errors
    assert len(errors.splitlines()) == 1


def test_an_option_like_no_other_is_one_line(config):
    status, _, errors = in_pipe("jobs/multidomain.py", "--config", str(config), "--zzz", "3")
    assert (status, errors) == (
        2, "error: --zzz: unknown option; --help lists the known ones\n"
    )  # fmt: skip


def test_a_wrong_option_is_one_sentence_with_status_2(config):
    command = ["jobs/multidomain.py", "--config", str(config), "--user-model.layrs", "3"]
    status, text, errors = in_pipe(*command)
    assert (status, text) == (2, "")
    assert errors == (
        "error: --user-model.layrs: unknown option; did you mean `--user-model.layers`?\n"
    )
