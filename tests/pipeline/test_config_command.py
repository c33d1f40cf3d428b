"""python -m pipeline.config: schema, show and validate; and overrides on the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.config import RunConfig, load
from pipeline.config_command import main, schema

ROOT = Path(__file__).resolve().parents[2]
BASE = "domains: [{name: books, source: {format: simulated, catalogue: books}}]\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(BASE)
    return path


def test_the_schema_describes_every_field_and_refuses_others():
    content = json.loads(schema())
    assert content["$schema"].startswith("https://json-schema.org/")
    assert content["additionalProperties"] is False
    training = content["$defs"]["TrainingConfig"]["properties"]
    assert training["lr"]["default"] == 0.003
    assert all(field["description"] for field in training.values())


def test_show_prints_a_config_that_is_the_same_when_read_again(file, tmp_path, capsys):
    overrides = ["--user-model.training.lr", "1e-4", "--models", "sasrec"]
    assert main(["show", str(file), *overrides]) == 0
    again = tmp_path / "again.yaml"
    again.write_text(capsys.readouterr().out)
    assert load(again) == load(file, overrides)
    assert yaml.safe_load(again.read_text())["sasrec"]["dim"] == 64, "defaults are shown"


def test_validate_says_ok_or_a_sentence_a_mistake(file, tmp_path, capsys):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(BASE + "nam: x\nuser_model: {layrs: 3}\n")
    assert main(["validate", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: ok\n"
    assert main(["validate", str(file), str(wrong)]) == 2
    said = capsys.readouterr()
    assert said.out == f"{file}: ok\n"
    assert [line[:7] for line in said.err.splitlines()] == ["error: ", "error: "]
    assert "did you mean `layers`" in said.err


def test_who_reads_only_the_beginning_gets_no_traceback():
    command = f"{sys.executable} -m pipeline.config schema | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "pipeline.config", "validate", "configs/demo.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "configs/demo.yaml: ok\n", "")


@pytest.mark.parametrize(
    ("options", "path", "value"),
    [
        (["--user-model.layers=4"], "user_model.layers", 4),
        (["--user_model.layers", "4"], "user_model.layers", 4),
        (["--sasrec.training.lr", "1e-4"], "sasrec.training.lr", 1e-4),
        (["--name", "7"], "name", "7"),
        (["--evaluation.ks", "5", "10"], "evaluation.ks", (5, 10)),
        (["--user-model.training.betas", "0.8", "0.9"], "user_model.training.betas", (0.8, 0.9)),
        (["--user-model.training.max-history", "null"], "user_model.training.max_history", None),
        (["--user-model.training.max-history", "None"], "user_model.training.max_history", None),
        (["--item-llm.lora", "null"], "item_llm.lora", None),
        (["--item-llm.lora.r", "2"], "item_llm.lora.r", 2),
        (["--evaluation.mask-seen", "false"], "evaluation.mask_seen", False),
        (["--evaluation.mask-seen", "False"], "evaluation.mask_seen", False),
        (["--large-domains", "books"], "large_domains", ("books",)),
        (["--user-model.joint", "{epochs: 3}"], "user_model.joint", {"epochs": 3}),
        (["--tracking.wandb-mode", "online"], "tracking.wandb_mode", "online"),
    ],
)
def test_an_option_sets_its_field(file, options, path, value):
    found = load(file, options)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--user-model.layrs", "4"], "unknown option; did you mean `--user-model.layers`"),
        (["--user-model.layers"], r"--user-model.layers: got no value, expected one value \(INT\)"),
        (["--user-model.layers", "1", "2"], "got 1 2, expected one value"),
        (["--models"], "--models: got no value"),
        (["--user-model.layers", "four"], "user_model.layers: .*integer.*got 'four'"),
        (["--models", "sasrek"], "models.0: .*got 'sasrek'"),
        (["--domains", "x"], "--domains: unknown option"),
        (["stray"], "'stray' follows no option"),
    ],
)
def test_a_wrong_option_is_one_sentence(file, options, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        load(file, options)
    assert len(str(caught.value).splitlines()) == 1


def test_an_option_does_not_reach_what_an_anchor_shares(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(BASE + "user_model: {training: &t {epochs: 3}}\nsasrec: {training: *t}\n")
    config = load(path, ["--user-model.training.epochs", "9"])
    assert (config.user_model.training.epochs, config.sasrec.training.epochs) == (9, 3)


def test_trackers_do_not_change_what_a_run_finds(file):
    followed = load(file, ["--tracking.tensorboard", "true"])
    assert followed.results_hash() == load(file).results_hash()
    assert isinstance(followed, RunConfig)
