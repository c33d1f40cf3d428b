"""A search's file: what it refuses, and what its trials are."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.config import RunConfig, load
from pipeline.search_config import Draw, SearchConfig, load_search
from pipeline.search_space import plan_trials, with_values

ROOT = Path(__file__).resolve().parents[2]
SHOPS = [{"name": n, "source": {"format": "simulated", "catalogue": n}} for n in ("books", "games")]
LR = "user_model.training.lr"
SPACE = {LR: {"loguniform": [1e-3, 1e-2]}, "user_model.dropout": {"uniform": [0, 0.5]}}


def config_of(**fields) -> RunConfig:
    return RunConfig.model_validate({"domains": SHOPS, **fields})


def search_of(**fields) -> SearchConfig:
    return SearchConfig.model_validate({"model": "hydra_ids", "trials": 5, "space": SPACE} | fields)


MISTAKES = {
    "unknown field": ({"trails": 3}, "trails: unknown field; did you mean `trials`?"),
    "unknown way": (
        {"space": {LR: {"unifrom": [0, 1]}}},
        f"space.{LR}.unifrom: unknown field; did you mean `uniform`?",
    ),
    "two ways": (
        {"space": {LR: {"uniform": [0, 1], "choice": [1]}}},
        "got uniform and choice, expected one of uniform, loguniform and choice",
    ),
    "no way": ({"space": {LR: {}}}, "got none, expected one of"),
    "no field": ({"space": {}}, "space: Dictionary should have at least 1 item"),
    "no choice": ({"space": {LR: {"choice": []}}}, "should have at least 1 item"),
    "no domain": ({"domains": []}, "domains: Tuple should have at least 1 item"),
    "wrong way round": ({"space": {LR: {"uniform": [1, 0]}}}, "got [1, 0], expected [least"),
    "logarithm of 0": ({"space": {LR: {"loguniform": [0, 1]}}}, "expected one above 0"),
    "text": ({"space": {LR: {"uniform": ["0", 1]}}}, "valid number, got '0'"),
    "infinite": ({"space": {LR: {"uniform": [0, float("inf")]}}}, "finite number"),
    "text for a number": ({"trials": "5"}, "trials: Input should be a valid integer, got '5'"),
    "no trials": ({"trials": 0}, "trials: Input should be greater than or equal to 1, got 0"),
    "no such model": ({"model": "sasrek"}, "model: Input should be 'popularity'"),
    "counts": ({"model": "popularity"}, "model: popularity only counts"),
    "no such domain": ({"domains": ["book"]}, "got 'book'; did you mean `books`?"),
    "another model's": (
        {"space": {"sasrec.dim": {"choice": [16]}}},
        "space.sasrec.dim: no field of hydra_ids; did you mean `user_model.dim`?",
    ),
    "misspelt": ({"space": {"user_model.dims": {"choice": [16]}}}, "did you mean `user_model.dim`"),
    "shared": (
        {"space": {"user_model.training.epochs": {"choice": [5, 9]}}},
        "all trials share it; set it in the config, or by --user-model.training.epochs",
    ),
    "out of bounds": (
        {"space": {"user_model.dropout": {"uniform": [0.5, 1.5]}}},
        "space.user_model.dropout: Input should be less than 1, got 1.5",
    ),
    "wrong choice": (
        {"space": {"user_model.head": {"choice": ["full", "fat"]}}},
        "space.user_model.head: Input should be 'full', 'lean' or 'mamba1', got 'fat'",
    ),
    "truth for a number": (
        {"space": {"user_model.layers": {"choice": [True]}}},
        "got True, which is read as 1; write that",
    ),
    "number as text": (
        {"space": {"user_model.layers": {"choice": ["2"]}}},
        "got '2', which is read as 2; write that",
    ),
    "no whole number": (
        {"space": {"user_model.layers": {"uniform": [1, 2.5]}}},
        "space.user_model.layers: got 2.5, expected whole numbers",
    ),
    "too few": (
        {"space": {"user_model.layers": {"choice": [1, 2]}}},
        "trial 2: none of 1000 draws can be run; the last: it was tried already",
    ),
    "never fits": (
        {"space": {"user_model.head_dim": {"choice": [3, 5]}}},
        "trial 0: none of 1000 draws can be run; the last: the config: user_model: head_dim",
    ),
    "before validation": ({"grace_epochs": 2}, "got 2, expected 3 (training.validate_every) to 9"),
    "after the end": ({"grace_epochs": 10}, "got 10, expected 3 (training.validate_every) to 9"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_that_names_the_file(mistake, tmp_path):
    fields, sentence = MISTAKES[mistake]
    file = tmp_path / "space.yaml"
    content = {"model": "hydra_ids", "trials": 5, "space": SPACE} | fields
    file.write_text(yaml.safe_dump(content))
    config = config_of(user_model={"training": {"epochs": 9, "validate_every": 3}})
    with pytest.raises(ValueError, match=r"space\.yaml") as caught:
        plan_trials(load_search(file), config, str(file))
    assert sentence in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_absent_file_says_where_an_example_is(tmp_path):
    with pytest.raises(ValueError, match=r"--space .*no such file; configs/search/"):
        load_search(tmp_path / "none.yaml")


def test_the_joint_models_own_fields_count():
    config = config_of(user_model={"joint": {"lr": 1e-3}})
    joint = {"user_model.joint.lr": {"loguniform": [1e-4, 1e-2]}}
    (plan,) = plan_trials(search_of(model="hydra_joint", trials=1, space=joint), config, "f")
    assert [task.domain for task in plan.tasks] == [None]
    assert plan.tasks[0].training.lr == plan.values["user_model.joint.lr"] != 1e-3
    with pytest.raises(ValueError, match=r"no effect, since the config sets user_model\.joint\.lr"):
        plan_trials(search_of(model="hydra_joint"), config, "f")
    with pytest.raises(ValueError, match="no field of hydra_ids"):
        plan_trials(search_of(space=joint), config, "f")


def test_trials_are_drawn_by_number_and_none_twice():
    fields = {"user_model.layers": {"choice": [1, 2, 3]}, "user_model.heads": {"choice": [1, 2]}}
    few = plan_trials(search_of(trials=3, space=fields), config_of(), "f")
    all_six = plan_trials(search_of(trials=6, space=fields), config_of(), "f")
    assert [plan.values for plan in all_six[:3]] == [plan.values for plan in few]
    assert len({tuple(plan.values.values()) for plan in all_six}) == 6
    other = plan_trials(search_of(trials=3, space=fields, seed=1), config_of(), "f")
    assert [plan.values for plan in other] != [plan.values for plan in few]
    wider = plan_trials(
        search_of(trials=3, space=SPACE | {LR: {"choice": [1e-3]}}), config_of(), ""
    )
    narrow = plan_trials(search_of(trials=3), config_of(), "f")
    assert [p.values["user_model.dropout"] for p in wider] == [
        p.values["user_model.dropout"] for p in narrow
    ], "one field's draws do not depend on another's"


def test_values_that_do_not_fit_together_are_drawn_again():
    # 8 heads cost more than they save unless they are narrow: of four pairs three can be built.
    fields = {"user_model.heads": {"choice": [2, 8]}, "user_model.head_dim": {"choice": [16, 32]}}
    config = config_of(user_model={"dim": 64})
    plans = plan_trials(search_of(trials=3, space=fields), config, "f")
    got = {(p.values["user_model.heads"], p.values["user_model.head_dim"]) for p in plans}
    assert got == {(2, 16), (2, 32), (8, 16)}


def test_a_trial_trains_each_domain_with_its_values():
    plans = plan_trials(search_of(), config_of(split={"kind": "refit"}), "f")
    for plan in plans:
        assert [task.domain for task in plan.tasks] == ["books", "games"]
        for task in plan.tasks:
            assert task.training.lr == plan.values[LR]
            assert task.architecture.dropout == plan.values["user_model.dropout"]
            assert task.split.kind == "strict", "validation events never train in a search"
    (plan,) = plan_trials(search_of(trials=1, domains=["games"]), config_of(), "f")
    assert [task.domain for task in plan.tasks] == ["games"]


def test_draws_stay_in_their_bounds_and_fill_them():
    random = np.random.default_rng(0)
    whole = [Draw(uniform=(1, 3)).draw(random, whole=True) for _ in range(600)]
    assert all(type(value) is int for value in whole)
    assert all(150 < whole.count(value) < 250 for value in (1, 2, 3))
    logs = [Draw(loguniform=(1e-4, 1e-2)).draw(random, whole=False) for _ in range(600)]
    assert 1e-4 <= min(logs) < 2e-4
    assert 5e-3 < max(logs) <= 1e-2
    assert 200 < sum(value < 1e-3 for value in logs) < 400
    powers = [Draw(loguniform=(8, 512)).draw(random, whole=True) for _ in range(100)]
    assert all(type(value) is int and 8 <= value <= 512 for value in powers)


def test_a_search_and_candidates_are_not_both_tried(tmp_path):
    config = config_of(user_model={"candidates": {"dropout": [0.1, 0.2]}})
    with pytest.raises(ValueError, match=r"space.yaml.*user_model.candidates for dropout"):
        plan_trials(search_of(), config, "space.yaml")
    assert plan_trials(search_of(), config_of(sasrec={"candidates": {"dropout": [0.1, 0.2]}}), "")


def test_rungs_rise_by_the_reduction_to_the_end():
    assert search_of(grace_epochs=4, reduction=3).rungs(40) == (4, 12, 36, 40)
    assert search_of(grace_epochs=4, reduction=3).rungs(36) == (4, 12, 36)
    assert search_of(grace_epochs=5).rungs(5) == (5,)


def test_values_reach_the_config_and_nothing_else_changes():
    config = config_of(user_model={"joint": {"lr": 1e-3}, "dim": 32})
    assert with_values(config, {}) == config
    changed = with_values(config, {LR: 5e-3, "user_model.state_dim": None})
    assert changed.user_model.training.lr == 5e-3
    assert changed.sasrec == config.sasrec


@pytest.mark.parametrize("name", ["beauty_hydra", "beauty_sasrec"])
def test_the_searches_of_the_project_fit_the_config_they_name(name):
    file = ROOT / "configs" / "search" / f"{name}.yaml"
    config = load(ROOT / "configs" / "beauty.yaml")
    search = load_search(file)
    assert len(plan_trials(search, config, str(file))) == search.trials
