"""jobs/evaluate_transfer.py on a real Ray: seeds on the same data, cells, tables, and again."""

import json

import numpy as np
import pytest
import yaml

from jobs.evaluate_transfer import main
from pipeline.metrics import ndcg
from pipeline.ranks_file import load_ranks

SHOP = {"format": "simulated", "population": 500, "items": 60, "mean_history": 6}
TINY = {"dim": 16, "training": {"epochs": 2, "negatives": 16, "warmup_steps": 2}}
MODELS = ("popularity", "hydra_single", "hydra_joint")


@pytest.fixture
def options(tmp_path):
    content = {
        "name": "tiny",
        "store": str(tmp_path / "store"),
        "domains": [
            # Sampled people: the same ones for every training seed.
            {"name": "books", "source": SHOP | {"catalogue": "books", "max_users": 150}},
            {"name": "garden", "source": SHOP | {"catalogue": "garden", "share": 0.4}},
        ],
        "models": list(MODELS),
        "item_llm": {"encoder": {"base": "static", "max_tokens": 16}, "lora": None},
        "user_model": TINY | {"layers": 1},
        "evaluation": {"bootstrap_resamples": 200},
    }
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(content))
    return [
        *("--config", str(config), "--run-dir", str(tmp_path / "run")),
        *("--out", str(tmp_path / "docs"), "--seeds", "0", "1"),
    ]


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
def test_seeds_are_run_on_the_same_data_and_compared_together(options, tmp_path, capsys):
    assert main(options) == 0
    told = capsys.readouterr().out
    assert "joint - single" in told
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    runs = [
        json.loads((tmp_path / "run" / f"seed-{seed}" / "metrics.json").read_text())
        for seed in (0, 1)
    ]
    assert {run["data_fingerprint"] for run in runs} == {metrics["data_fingerprint"]}
    for name, domain in metrics["domains"].items():
        figures = [run["domains"][name]["models"]["hydra_joint"]["ndcg@10"] for run in runs]
        joint = domain["models"]["hydra_joint"]
        assert joint["seeds"] == pytest.approx(figures, rel=1e-5)
        assert figures[0] != figures[1]
        assert joint["ndcg@10"] == pytest.approx(np.mean(figures), rel=1e-5)
        for group in domain["buckets"].values():
            users = [bucket["users"] for bucket in group.values()]
            assert sum(users) == domain["evaluated_users"]

    cells = sorted((tmp_path / "docs" / "results" / "transfer.tiny").glob("*.json"))
    assert len(cells) == 2 * len([*MODELS, "oracle"]) * 2
    cell = json.loads((cells[0].parent / "garden.hydra_joint.seed-1.json").read_text())
    [ranked] = (tmp_path / "store").glob(f"{cell['ranks']}")
    assert cell["test"]["ndcg@10"] == pytest.approx(
        ndcg(load_ranks(ranked)["garden"], 10).mean(), rel=1e-5
    )
    assert (
        cell["test"]["ndcg@10"] == runs[1]["domains"]["garden"]["models"]["hydra_joint"]["ndcg@10"]
    )

    page = (tmp_path / "docs" / "results.md").read_text()
    assert "mean over seeds 0, 1" in page
    assert "--seeds 0 1" in page
    assert str(tmp_path) not in page
    assert f"{metrics['domains']['books']['models']['hydra_joint']['ndcg@10']:.4f}" in page
    report = (tmp_path / "run" / "report.html").read_text()
    assert "over training seeds 0 and 1" in report

    capsys.readouterr()
    out = options.index("--out")
    assert main(options[:out] + options[out + 2 :]) == 0
    again = capsys.readouterr().out
    assert ": ran" not in again
    assert "train.hydra_joint: reused" in again

    # On another machine, with what --out left alone: nothing is trained, and the table is the same.
    for folder in ("store", "run"):
        (tmp_path / folder).rename(tmp_path / f"{folder}-of-another-machine")
    assert main(options) == 0
    elsewhere = capsys.readouterr().out
    assert "corpus: ran" in elsewhere
    assert "train." not in elsewhere
    assert "report: none" in elsewhere
    assert (tmp_path / "docs" / "results.md").read_text() == page
    assert not (tmp_path / "run").exists()

    assert main([*options, "2", "--plan"]) == 0
    plan = capsys.readouterr().out
    assert plan.count("its ranks are kept, so it would not be run") == 2
    assert "seed 2\n" in plan

    # A further seed is run, and joins the two.
    assert main([*options, "2"]) == 0
    assert "train.hydra_joint: ran" in capsys.readouterr().out
    more = json.loads((tmp_path / "run" / "metrics.json").read_text())
    of_three = more["domains"]["garden"]["models"]["hydra_joint"]["seeds"]
    of_two = metrics["domains"]["garden"]["models"]["hydra_joint"]["seeds"]
    assert of_three[:2] == of_two
    assert len(of_three) == 3


def test_a_seed_given_twice_is_refused(options, capsys):
    assert main([*options[:-2], "1", "1"]) == 2
    assert "seeds: got [1, 1], expected one or more, each once" in capsys.readouterr().err
