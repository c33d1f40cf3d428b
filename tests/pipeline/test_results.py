import json
import re

import numpy as np
import pytest
from rich.console import Console

from pipeline.evaluation import EvaluationConfig
from pipeline.metrics import Ranks, from_ranks, ndcg
from pipeline.results import DomainFacts, assemble, share_of_oracle, to_json
from pipeline.results_table import results_table
from pipeline.statistics import named_seed, paired_difference

CONFIG = EvaluationConfig(ks=(10, 50), bootstrap_resamples=200, seed=3)
MODELS = ("popularity", "sasrec", "hydra_single", "hydra_joint")


def ranks_of(scale: float, n: int = 60, seed: int = 0) -> Ranks:
    best = np.random.default_rng(seed).exponential(scale, n).astype(np.int64) + 1
    return Ranks(best=best, ties=np.ones(n, np.int64))


def facts(group: str, interactions: int = 1000) -> DomainFacts:
    return DomainFacts(size_group=group, users=70, items=300, interactions=interactions)


def run(domains: dict[str, dict[str, Ranks]], groups: dict[str, str] | None = None) -> dict:
    sizes = {name: facts((groups or {}).get(name, "large")) for name in domains}
    ranks = {name: {m: [found] for m, found in models.items()} for name, models in domains.items()}
    return assemble(ranks, sizes, CONFIG, buckets={}, config_hash="c", data_fingerprint="d")


@pytest.fixture
def two_domains() -> dict[str, dict[str, Ranks]]:
    """Joint training helps books (better ranks for everyone) and hurts toys."""
    single = ranks_of(20, seed=1)
    better = Ranks(best=np.maximum(1, single.best // 3), ties=single.ties)
    models = {"popularity": ranks_of(200), "sasrec": ranks_of(25, seed=2)}
    return {
        "books": models | {"hydra_single": single, "hydra_joint": better},
        "toys": models | {"hydra_single": better, "hydra_joint": single},
    }


def test_figures_are_the_metrics_of_the_ranks(two_domains):
    metrics = run(two_domains)
    for name, models in two_domains.items():
        for model, ranks in models.items():
            for metric, value in from_ranks(ranks, CONFIG.ks).items():
                figures = metrics["domains"][name]["models"][model]
                assert figures[metric] == pytest.approx(value, rel=1e-5)
                low, high = figures["ci95"][metric]
                assert low <= figures[metric] <= high
    assert metrics["domains"]["books"]["evaluated_users"] == 60
    assert metrics["domains"]["books"]["users"] == 70


def test_deltas_are_paired_and_mark_negative_transfer(two_domains):
    metrics = run(two_domains)
    gain = metrics["domains"]["books"]["deltas"]["hydra_joint"]
    loss = metrics["domains"]["toys"]["deltas"]["hydra_joint"]
    assert gain["against"] == loss["against"] == "hydra_single"
    assert (gain["negative_transfer"], loss["negative_transfer"]) == (False, True)
    toys = two_domains["toys"]
    expected = paired_difference(
        ndcg(toys["hydra_joint"], 10), ndcg(toys["hydra_single"], 10), 200, named_seed(3, "toys")
    )
    assert loss["ndcg@10"] == pytest.approx(expected.mean, rel=1e-5)
    bounds = [expected.interval.low, expected.interval.high]
    assert loss["ci95"] == pytest.approx(bounds, rel=1e-5)
    assert set(metrics["domains"]["toys"]["comparisons"]["hydra_joint"]) == {
        "popularity",
        "sasrec",
        "hydra_single",
    }


def drop_holm(found: dict) -> None:
    found.pop("p_holm", None)
    for value in found.values():
        if isinstance(value, dict):
            drop_holm(value)


def test_differences_have_size_and_significance(two_domains):
    metrics = run(two_domains)
    toys = two_domains["toys"]
    lost = ndcg(toys["hydra_joint"], 10) - ndcg(toys["hydra_single"], 10)
    loss = metrics["domains"]["toys"]["deltas"]["hydra_joint"]
    single = metrics["domains"]["toys"]["models"]["hydra_single"]["ndcg@10"]
    assert loss["relative"] == pytest.approx(lost.mean() / single, rel=1e-4)
    assert loss["effect_size"] == pytest.approx(lost.mean() / lost.std(ddof=1), rel=1e-4)
    assert loss["p"] == pytest.approx(2 / 201, rel=1e-4)  # of 200 resamples none is on 0's side
    assert loss["p_holm"] == pytest.approx(4 / 201, rel=1e-4)  # two domains are asked about
    whole = metrics["group_deltas"]["all"]["hydra_joint"]
    assert "p" in whole
    assert "p_holm" not in whole
    assert metrics["group_comparisons"]["all"]["sasrec"]["ndcg@10"] == pytest.approx(
        metrics["groups"]["all"]["hydra_joint"]["ndcg@10"]
        - metrics["groups"]["all"]["sasrec"]["ndcg@10"],
        abs=1e-6,
    )


def test_seeds_are_averaged_user_by_user():
    seeds = {"hydra_joint": [ranks_of(9, seed=s) for s in range(3)], "sasrec": [ranks_of(30)]}
    metrics = assemble(
        {"books": seeds}, {"books": facts("large")}, CONFIG,
        buckets={}, config_hash="c", data_fingerprint="d",
    )  # fmt: skip
    models = metrics["domains"]["books"]["models"]
    by_seed = [from_ranks(ranks, CONFIG.ks)["ndcg@10"] for ranks in seeds["hydra_joint"]]
    assert models["hydra_joint"]["seeds"] == pytest.approx(by_seed, rel=1e-5)
    assert models["hydra_joint"]["ndcg@10"] == pytest.approx(np.mean(by_seed), rel=1e-5)
    assert "seeds" not in models["sasrec"]
    users = np.mean([ndcg(ranks, 10) for ranks in seeds["hydra_joint"]], axis=0)
    expected = paired_difference(users, ndcg(seeds["sasrec"][0], 10), 200, named_seed(3, "books"))
    found = metrics["domains"]["books"]["comparisons"]["hydra_joint"]["sasrec"]
    bounds = [expected.interval.low, expected.interval.high]
    assert found["ci95"] == pytest.approx(bounds, rel=1e-5)


def test_a_bucket_of_few_users_has_no_figures(two_domains):
    """The interval of a single user would have no width, and would always be marked."""
    groups = {"history": {"1-5": np.arange(60) < 20, "6-20": np.arange(60) >= 41}}
    ranks = {m: [found] for m, found in two_domains["toys"].items()}
    metrics = assemble(
        {"toys": ranks}, {"toys": facts("small")}, CONFIG,
        buckets={"toys": groups}, config_hash="c", data_fingerprint="d",
    )  # fmt: skip
    found = metrics["domains"]["toys"]["buckets"]["history"]
    assert found["1-5"]["users"] == 20
    assert found["1-5"]["models"]
    assert found["6-20"] == {"users": 19, "models": {}, "deltas": {}}


def test_buckets_are_the_same_figures_of_some_users(two_domains):
    rows = np.arange(60) % 3 == 0
    groups = {"item": {"cold": rows, "tail": ~rows, "head": np.zeros(60, dtype=bool)}}
    ranks = {m: [found] for m, found in two_domains["toys"].items()}
    metrics = assemble(
        {"toys": ranks}, {"toys": facts("small")}, CONFIG,
        buckets={"toys": groups}, config_hash="c", data_fingerprint="d",
    )  # fmt: skip
    item = metrics["domains"]["toys"]["buckets"]["item"]
    assert [item[name]["users"] for name in ("cold", "tail", "head")] == [20, 40, 0]
    assert item["head"]["models"] == item["head"]["deltas"] == {}
    sasrec = ndcg(two_domains["toys"]["sasrec"], 10)
    assert item["cold"]["models"]["sasrec"]["ndcg@10"] == pytest.approx(
        sasrec[rows].mean(), rel=1e-5
    )
    whole = metrics["domains"]["toys"]["deltas"]["hydra_joint"]["ndcg@10"]
    parts = [item[name]["deltas"]["hydra_joint"]["ndcg@10"] for name in ("cold", "tail")]
    assert (20 * parts[0] + 40 * parts[1]) / 60 == pytest.approx(whole, rel=1e-4)


def test_groups_are_means_over_domains(two_domains):
    metrics = run(two_domains, {"books": "large", "toys": "small"})
    books, toys = (metrics["domains"][name]["models"]["sasrec"] for name in ("books", "toys"))
    whole = metrics["groups"]["all"]["sasrec"]
    assert whole["hr@50"] == pytest.approx((books["hr@50"] + toys["hr@50"]) / 2, rel=1e-5)
    assert metrics["groups"]["small"]["sasrec"]["mrr"] == toys["mrr"]
    assert whole["ci95"]["mrr"][0] < whole["mrr"] < whole["ci95"]["mrr"][1]
    delta = metrics["group_deltas"]["all"]["hydra_joint"]["ndcg@10"]
    parts = [d["deltas"]["hydra_joint"]["ndcg@10"] for d in metrics["domains"].values()]
    assert delta == pytest.approx(sum(parts) / 2, abs=1e-6)


def test_a_model_absent_from_one_domain_enters_no_average_over_it(two_domains):
    del two_domains["toys"]["sasrec"]
    metrics = run(two_domains, {"books": "large", "toys": "small"})
    assert "sasrec" in metrics["groups"]["large"]
    assert "sasrec" not in metrics["groups"]["all"]


def test_another_domain_changes_nothing_in_the_first(two_domains):
    both, alone = run(two_domains), run({"books": two_domains["books"]})
    for metrics in (both, alone):  # p_holm is a matter of how many domains are asked about
        for differences in ("deltas", "comparisons"):
            drop_holm(metrics["domains"]["books"][differences])
    assert to_json(both["domains"]["books"]) == to_json(alone["domains"]["books"])
    assert set(alone["groups"]) == {"large", "all"}


def test_the_file_is_byte_identical_and_strict_json(two_domains):
    shuffled = {
        name: dict(reversed(list(models.items())))
        for name, models in reversed(list(two_domains.items()))
    }
    assert to_json(run(two_domains)) == to_json(run(shuffled))
    read_back = json.loads(to_json(run(two_domains)))
    assert read_back == run(two_domains)
    figures = read_back["domains"]["books"]["models"]["sasrec"]
    assert figures["mrr"] == float(f"{figures['mrr']:.6g}")


def test_one_model_has_no_deltas():
    metrics = run({"books": {"popularity": ranks_of(50)}})
    assert metrics["domains"]["books"]["deltas"] == {}
    assert metrics["domains"]["books"]["comparisons"] == {}
    assert metrics["group_deltas"] == {"large": {}, "all": {}}


def test_models_on_other_users_are_refused():
    with pytest.raises(ValueError, match="same users"):
        run({"books": {"sasrec": ranks_of(9, n=5), "popularity": ranks_of(9, n=6)}})
    with pytest.raises(ValueError, match="results of books"):
        run({"books": {"sasrec": ranks_of(9, n=0)}})
    with pytest.raises(ValueError, match="results of books"):
        run({"books": {}})


def test_the_share_of_the_oracle_needs_an_oracle():
    models = {"oracle": {"ndcg@10": 0.4}, "hydra_joint": {"ndcg@10": 0.3}}
    assert share_of_oracle(models, "hydra_joint") == pytest.approx(0.75)
    assert share_of_oracle(models, "sasrec") is None
    assert share_of_oracle({"hydra_joint": {"ndcg@10": 0.3}}, "hydra_joint") is None


def printed(metrics: dict, width: int = 80) -> list[str]:
    console = Console(width=width, record=True, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(results_table(metrics, width))
    return captured.get().splitlines()


def test_the_table_shows_every_domain_within_80_columns(two_domains):
    two_domains["a domain with a very long name that has [brackets]"] = two_domains["books"]
    lines = printed(run(two_domains, {"toys": "small"}))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for expected in ("books", "toys", "a domain", "Popul.", "negative transfer"):
        assert expected in text
    [toys] = [line for line in lines if line.split()[:1] == ["toys"]]
    [books] = [line for line in lines if line.split()[:1] == ["books"]]
    assert "▼" in toys
    assert "▲" in books
    assert "of oracle" not in text


def test_the_table_names_the_models_that_do_not_fit(two_domains):
    many = ("popularity_7d", "item_knn", "sasrec_bce", "hydra_ids", "hydra_frozen", "oracle")
    for models in two_domains.values():
        models.update({model: ranks_of(5, seed=9) for model in many})
    lines = printed(run(two_domains))
    assert max(map(len, lines)) <= 80
    [note] = [line for line in lines if line.startswith("In the report")]
    assert "SASRec BCE" in note
    assert "of oracle" in "\n".join(lines)


def test_the_best_of_a_row_is_bold(two_domains):
    console = Console(width=80, force_terminal=True, color_system="standard")
    with console.capture() as captured:
        console.print(results_table(run({"books": two_domains["books"]})))
    [row] = [line for line in captured.get().splitlines() if "books" in line]
    joint = run(two_domains)["domains"]["books"]["models"]["hydra_joint"]["ndcg@10"]
    assert re.findall(r"\x1b\[1m *(\S+)\x1b", row) == [f"{joint:.4f}"]
