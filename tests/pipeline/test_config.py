import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import RunConfig, load

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "{name: books, source: {format: simulated, catalogue: books}}"


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_own_data_take_five_lines(tmp_path):
    config = load(
        write(
            tmp_path,
            "name: shop\ndomains:\n  - name: games\n"
            "    source: {format: table, interactions: games.csv, items: items.csv}\n",
        )
    )
    assert config.domains[0].source.interactions == "games.csv"
    assert config.models == ("popularity", "sasrec", "hydra_single", "hydra_joint")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            f"domains: [{DOMAIN}]\nuser_modl: {{}}",
            "user_modl: unknown field; did you mean `user_model`",
        ),
        (
            f"domains: [{DOMAIN}]\nuser_model: {{layrs: 3}}",
            "user_model.layrs: .*did you mean `layers`",
        ),
        (
            f"domains: [{DOMAIN}]\nuser_model: {{training: {{epohcs: 3}}}}",
            "user_model.training.epohcs: .*`epochs`",
        ),
        (
            "domains: [{name: b, source: {format: simulated, catalogue: books, itms: 5}}]",
            r"domains.0.source.itms: .*`items`",
        ),
        ("name: x", "domains: this field is required"),
        ("domains: [{name: ../x, source: {format: ids, path: a}}]", "'../x' cannot be used"),
        (f"domains: [{DOMAIN}, {DOMAIN}]", "'books' is given twice"),
        (f"domains: [{DOMAIN}]\nlarge_domains: [boks]", "'boks'; did you mean `books`"),
        (f"domains: [{DOMAIN}]\nmodels: [sasrec, sasrec]", "lists a model twice"),
        (f"domains: [{DOMAIN}]\nname: a/b", "the run name 'a/b' cannot be used"),
        (
            f"domains: [{DOMAIN}]\nuser_model: {{joint: {{epohcs: 3}}}}",
            "user_model: joint: training.epohcs: .*`epochs`",
        ),
        (
            f"domains: [{DOMAIN}]\nuser_model: {{interleave: true, items: {{text_channel: true}}}}",
            "interleave: got true with items.text_channel: true",
        ),
        (f"domains: [{DOMAIN}]\nuser_model: {{joint: {{dropout: 2}}}}", "joint: dropout: .*got 2"),
        (f"domains: [{DOMAIN}]\nuser_model: {{dim: wide}}", "user_model.dim: .*got 'wide'"),
    ],
)
def test_a_mistake_gets_one_sentence_with_place_and_suggestion(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        load(write(tmp_path, text))
    assert len(str(caught.value).splitlines()) == 1
    assert "run.yaml" in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path):
    text = f"nam: x\ndomains: [{DOMAIN}]\nuser_model: {{layrs: 3}}"
    with pytest.raises(ValueError, match="layrs") as caught:
        load(write(tmp_path, text))
    assert len(str(caught.value).splitlines()) == 2


def test_command_line_goes_over_the_file(tmp_path):
    path = write(tmp_path, f"domains: [{DOMAIN}]\nuser_model: {{layers: 3}}")
    overrides = ["--user-model.layers", "4", "--item-llm.lora.r", "2", "--models", "popularity"]
    config = load(path, overrides)
    assert (config.user_model.layers, config.item_llm.lora.r) == (4, 2)
    assert config.models == ("popularity",)
    assert config.domains == load(path).domains


def test_results_hash_ignores_names_and_workers_but_nothing_else(tmp_path):
    base = RunConfig.model_validate({"domains": [{"name": "b", "source": SIMULATED}]})
    same = base.model_copy(update={"name": "other", "store": "/elsewhere"})
    other = base.model_copy(update={"seed": 1})
    assert base.results_hash() == same.results_hash() != other.results_hash()


SIMULATED = {"format": "simulated", "catalogue": "books"}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_are_valid(path):
    assert load(path).name


def test_importing_the_config_loads_no_heavy_library():
    heavy = ("ray", "deepspeed", "lance", "transformers", "peft")
    code = f"import sys, pipeline.config; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
