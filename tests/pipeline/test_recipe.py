"""What decides a stage's output, and what does not."""

from pathlib import Path

import pytest

from pipeline.config import RunConfig
from pipeline.recipe import RecipeBuilder

SOURCE = {"format": "simulated", "catalogue": "books", "max_users": 50}
CONFIG = {"domains": [{"name": "books", "source": SOURCE}], "models": ["popularity", "sasrec"]}


def keys(**fields):
    config = RunConfig.model_validate(CONFIG | fields)
    recipe = RecipeBuilder(config, Path("/nowhere"), Path("/nowhere/store")).build()
    stages = [recipe.corpus, *recipe.trained.values(), *recipe.ranked.values(), recipe.metrics]
    return {stage.name: stage.key for stage in stages}


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ({"name": "other", "compute": {"workers": 4}}, set()),
        ({"large_domains": ["books"]}, {"metrics"}),
        ({"evaluation": {"ks": [5, 10]}}, {"metrics"}),
        ({"sasrec": {"layers": 3}}, {"train.sasrec.books", "rank.sasrec.books", "metrics"}),
        ({"seed": 1}, set(keys())),  # it chooses the users, so everything
    ],
    ids=["name", "large", "ks", "layers", "seed"],
)
def test_a_field_changes_the_stages_that_depend_on_it(changed, stages):
    before, after = keys(), keys(**changed)
    assert {name for name in before if before[name] != after[name]} == stages


def test_the_type_of_the_vectors_changes_what_is_made_of_them_and_not_the_adapter():
    def made(**fields):
        llm = {"models": ["hydra_single"], "item_llm": {"encoder": {"base": "minilm"}}}
        config = RunConfig.model_validate(CONFIG | llm | fields)
        recipe = RecipeBuilder(config, Path("/nowhere"), Path("/nowhere/store")).build()
        assert recipe.item_llm is not None
        return {s.name: s.key for s in (recipe.item_llm, recipe.vectors["tuned"], recipe.metrics)}

    before, after = made(), made(vectors_dtype="int8")
    assert {name for name in before if before[name] != after[name]} == {"vectors", "metrics"}


@pytest.mark.parametrize(
    ("models", "item_llm", "expected"),
    [
        (["hydra_single"], {}, {"corpus", "vectors"}),
        (["hydra_single", "hydra_frozen"], {}, {"corpus", "vectors", "vectors_frozen"}),
        (["hydra_single"], {"lora": None}, None),
        (["hydra_ids"], {}, None),
    ],
    ids=["tuned", "both", "frozen", "ids"],
)
def test_neighbours_are_compared_where_something_was_tuned(models, item_llm, expected):
    encoder = {"encoder": {"base": "minilm"}}
    config = RunConfig.model_validate(CONFIG | {"models": models, "item_llm": encoder | item_llm})
    recipe = RecipeBuilder(config, Path("/nowhere"), Path("/nowhere/store")).build()
    found = recipe.neighbours
    assert (found and {stage.name for stage in found.inputs}) == expected
    assert (found in recipe.targets) == (found is not None)
    assert recipe.metrics in recipe.targets
