"""Settings chosen on validation in whole small runs: what is tried, kept, ranked and told."""

import json
from io import StringIO

import pytest
from rich.console import Console

from pipeline.choice import CHOICE, Tried, best_of
from pipeline.config import RunConfig
from pipeline.plan import make_plan
from pipeline.plan_text import plan_text
from pipeline.progress import Progress
from pipeline.run import execute
from pipeline.user_models import CURVE, WEIGHTS
from pipeline.whole_files import read_json

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SHOP = {"format": "simulated", "population": 200, "items": 40, "mean_history": 6}
TRAINING = {"epochs": 3, "negatives": 16, "batch_tokens": 512, "warmup_steps": 2}
# A model of three layers, as the section has it, cannot read the weights of those tried.
TRIED = {"layers": [1, 2], "training.lr": [1e-3]}


def config(folder, candidates, split="strict", **sasrec):
    section = {"dim": 16, "layers": 3, "training": TRAINING, "candidates": candidates} | sasrec
    return RunConfig.model_validate(
        {
            "store": str(folder / "store"),
            "domains": [
                {"name": name, "source": SHOP | {"catalogue": name, "share": share}}
                for name, share in (("books", 0.9), ("garden", 0.6))
            ],
            "split": {"kind": split},
            "models": ["sasrec"],
            "sasrec": section,
        }
    )


def run(folder, given):
    return execute(given, folder / "run", Progress(Console(file=StringIO())))


def weights_of(stage):
    return (stage.artifact.path / WEIGHTS / "weights.safetensors").read_bytes()


def statuses(outcome, start):
    return {n: stage.status for n, stage in outcome.stages.items() if n.startswith(start)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("choice")


@pytest.fixture(scope="module")
def chosen(place, ray_session):
    return run(place, config(place, TRIED))


def test_each_domain_keeps_its_best_candidate_and_nothing_of_the_others(chosen, place):
    for domain in ("books", "garden"):
        told = chosen.choices["sasrec"][domain]
        assert [one["settings"]["layers"] for one in told] == [1, 2]
        best = max(told, key=lambda one: one["validation_ndcg@10"])
        assert [one for one in told if one["chosen"]] == [best]
        train = chosen.stages[f"train.sasrec.{domain}"]
        assert read_json(train.artifact.path / CHOICE) == best["settings"]
        tries = {
            read_json(stage.artifact.path / "manifest.json")["recipe"]["recipe"]["architecture"][
                "layers"
            ]: stage
            for name, stage in chosen.stages.items()
            if name.startswith(f"try.sasrec.{domain}.")
        }
        kept = tries[best["settings"]["layers"]]
        assert weights_of(train) == weights_of(kept)
        assert read_json(train.artifact.path / CURVE) == read_json(kept.artifact.path / CURVE)
        assert kept.facts["validation_ndcg@10"] == best["validation_ndcg@10"]
    card = json.loads((place / "run" / "run.json").read_text())
    assert card["choices"] == chosen.choices


def test_test_figures_are_those_of_a_run_that_was_given_the_chosen_settings(chosen, place):
    for domain in ("books", "garden"):
        [best] = [one for one in chosen.choices["sasrec"][domain] if one["chosen"]]
        fields = {"layers": best["settings"]["layers"], "training": TRAINING | {"lr": 1e-3}}
        alone = run(place / domain, config(place, {}, **fields))
        found, expected = (
            outcome.metrics["domains"][domain]["models"]["sasrec"] for outcome in (chosen, alone)
        )
        assert found == expected
        assert alone.choices == {}


def test_a_candidate_more_trains_that_one_alone(chosen, place):
    again = run(place, config(place, TRIED))
    assert set(statuses(again, "").values()) == {"reused"}
    wider = config(place, {"layers": [1, 2, 3], "training.lr": [1e-3]})
    plan = make_plan(wider, place / "run")
    to_do = [one.stage.name for one in plan.stages if one.state == "to do"]
    assert len([name for name in to_do if name.startswith("try.")]) == 2
    assert f"{len(to_do)} made" in plan_text(plan).splitlines()[-1]
    assert max(map(len, plan_text(plan).splitlines()[4:])) <= 80
    found = statuses(run(place, wider), "try.")
    assert sorted(found.values()) == ["ran"] * 2 + ["reused"] * 4


def test_a_refit_trains_the_best_again_for_as_many_epochs_as_were_best(place, ray_session):
    given = config(place, {"training.lr": [1e-3, 1e-2]}, split="refit")
    outcome = run(place / "refit", given)
    for domain in ("books", "garden"):
        [best] = [one for one in outcome.choices["sasrec"][domain] if one["chosen"]]
        train = outcome.stages[f"train.sasrec.{domain}"]
        assert train.facts["epochs"] == best["best_epoch"]
        assert train.facts["validation_ndcg@10"] == best["validation_ndcg@10"]
        curve = read_json(train.artifact.path / CURVE)
        assert max(point["ndcg@10"] for point in curve) == best["validation_ndcg@10"]
        name = f"try.sasrec.{domain}.training.lr={best['settings']['training.lr']}"
        assert weights_of(train) != weights_of(outcome.stages[name])


def test_a_refit_without_candidates_chooses_its_epochs(place, ray_session):
    outcome = run(place / "plain", config(place, {}, split="refit"))
    tried = outcome.stages["try.sasrec.books.strict"]
    train = outcome.stages["train.sasrec.books"]
    assert train.facts["epochs"] == tried.facts["best_epoch"]
    assert outcome.choices == {}, "nothing but epochs was chosen"


def test_of_equal_candidates_the_first_is_kept(tmp_path):
    figures = (0.1, 0.3, 0.3)
    tried = [
        Tried({"layers": n}, tmp_path, {"validation_ndcg@10": f}) for n, f in enumerate(figures)
    ]
    assert best_of(tried).settings == {"layers": 1}
