"""Which candidates a config may name, and what becomes of them."""

import doctest

import pytest

from pipeline import candidates, progress
from pipeline.architectures import architecture_of
from pipeline.candidates import setting_name, variants
from pipeline.config import RunConfig

BOOKS = {"name": "books", "source": {"format": "simulated", "catalogue": "books"}}


def config(**user_model):
    return RunConfig.model_validate({"domains": [BOOKS], "user_model": user_model})


@pytest.mark.parametrize("module", [candidates, progress])
def test_examples_of_names(module):
    assert doctest.testmod(module).failed == 0


def test_every_combination_is_a_section_with_nothing_left_to_choose():
    given = config(layers=1, candidates={"dropout": [0, 0.5], "training.lr": [1e-3, 1e-2]})
    found = variants(given.user_model, given.user_model.candidates)
    assert [settings for settings, _ in found] == [
        {"dropout": 0.0, "training.lr": 1e-3},
        {"dropout": 0.0, "training.lr": 1e-2},
        {"dropout": 0.5, "training.lr": 1e-3},
        {"dropout": 0.5, "training.lr": 1e-2},
    ]
    assert [(one.dropout, one.training.lr) for _, one in found] == [
        tuple(settings.values()) for settings, _ in found
    ]
    assert all(one.layers == 1 and one.candidates == {} for _, one in found)
    assert len({setting_name(settings) for settings, _ in found}) == 4


def test_without_candidates_the_section_itself_is_the_only_one():
    section = config(dropout=0.4).user_model
    assert variants(section, section.candidates) == [({}, section)]


@pytest.mark.parametrize(
    ("tried", "sentence"),
    [
        ({"dropot": [0.1]}, "candidates.dropot: unknown field; did you mean `dropout`"),
        ({"training": [1]}, "candidates.training: unknown field"),
        ({"dropout": []}, "candidates.dropout: got no value"),
        ({"dropout": [0.1, 0.2, 0.10]}, "candidates.dropout: 0.1 is given twice"),
        ({"layers": [1, 1.0]}, "candidates.layers: 1 is given twice"),
        ({"dropout": [0.1, 1.5]}, "candidates: dropout: .*less than 1, got 1.5"),
        ({"training.lr": ["fast"]}, "candidates: training.lr: .*got 'fast'"),
        ({"heads": [4], "head_dim": [16, 64]}, "heads, head_dim: got 4 x 64"),
        ({"validation_users": [10]}, "candidates.validation_users: is one for all"),
        ({"training.checkpoint_steps": [10]}, "checkpoint_steps: is one for all"),
    ],
)
def test_candidates_that_cannot_be_tried_are_refused(tried, sentence):
    with pytest.raises(ValueError, match=sentence):
        config(candidates=tried)


def test_joint_may_set_dropout_and_fields_of_training_for_the_joint_model_alone():
    given = config(dropout=0.4, joint={"dropout": 0.1, "epochs": 3})
    joint, single = (architecture_of(f"hydra_{name}", given) for name in ("joint", "single"))
    assert (joint.dropout, joint.training.epochs) == (0.1, 3)
    assert (single.dropout, single.training.epochs) == (0.4, 60)


def test_what_joint_sets_is_not_tried():
    with pytest.raises(ValueError, match="dropout: is set by joint and tried by candidates"):
        config(joint={"dropout": 0.1}, candidates={"dropout": [0.1, 0.2]})
    given = config(joint={"epochs": 3}, candidates={"dropout": [0.1, 0.2]})
    joint = architecture_of("hydra_joint", given)
    tried = [one for _, one in variants(joint, joint.candidates)]
    assert [(one.dropout, one.training.epochs) for one in tried] == [(0.1, 3), (0.2, 3)]
