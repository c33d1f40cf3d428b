"""Which trial is the best, and what the best config says."""

import pytest
import yaml

from pipeline.config import RunConfig
from pipeline.search_config import SearchConfig
from pipeline.search_results import best_trial, best_yaml, described, search_results

LR = "user_model.training.lr"
SHOPS = [{"name": n, "source": {"format": "simulated", "catalogue": n}} for n in ("books", "games")]


def trial(number, figure, status="complete", error=None):
    counts = {"epochs": 4, "seconds": 90.0, "cpu_seconds": 60.0}
    values = {LR: 1e-3 * (number + 1)}
    found = {"number": number, "status": status, "values": values, "ndcg@10": figure}
    return found | counts | {"error": error}


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        ([trial(0, 0.1), trial(1, 0.3), trial(2, 0.2)], 1),
        ([trial(0, 0.1), trial(1, 0.3), trial(2, 0.3)], 1),
        ([trial(0, 0.1), trial(1, 0.3, "failed"), trial(2, None, "failed")], 0),
        ([trial(0, 0.1), trial(1, 0.3, "stopped")], 1),
    ],
)
def test_the_best_is_the_first_of_the_highest_that_did_not_fail(trials, best):
    assert best_trial(trials)["number"] == best


def test_where_all_failed_the_first_reason_is_told():
    trials = [trial(0, None, "failed", "ValueError: dim"), trial(1, 0.2, "failed", "else")]
    with pytest.raises(ValueError, match="all 2 trials failed, the first with ValueError: dim"):
        best_trial(trials)


def test_the_best_config_is_the_given_one_with_the_values():
    given = RunConfig.model_validate(
        {"name": "shops", "domains": SHOPS, "split": {"kind": "refit"}, "models": ["popularity"]}
    )
    space = {LR: {"uniform": [0, 1]}}
    fields = {"model": "hydra_ids", "domains": ["games"], "space": space, "trials": 2}
    search = SearchConfig.model_validate(fields)
    results = search_results(search, given, 12, [trial(0, 0.1), trial(1, 0.3)])
    assert results["rungs"] == (4, 12)
    assert results["budget"] == {"trials": 2, "epochs": 8, "seconds": 180.0, "cpu_seconds": 120.0}
    text = best_yaml(search, given, results)
    assert text.startswith(
        "# Found by jobs/tune.py: hydra_ids, trial 1 of 2, validation ndcg@10 0.3"
    )
    tuned = RunConfig.model_validate(yaml.safe_load(text))
    assert tuned.user_model.training.lr == 2e-3
    assert tuned.models == ("popularity", "hydra_ids")
    training = given.user_model.training.model_copy(update={"lr": 2e-3})
    assert tuned.user_model == given.user_model.model_copy(update={"training": training})
    back = {name: getattr(given, name) for name in ("name", "models", "user_model")}
    assert tuned.model_copy(update=back) == given, "nothing else differs"
    assert "  3:00 of trials, 2:00 of processors" in described(results)
