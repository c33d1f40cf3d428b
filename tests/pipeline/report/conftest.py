"""A made-up run, assembled by the project's own code, and a browser, for what readers see."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation import EvaluationConfig
from pipeline.metrics import Ranks
from pipeline.report_files import RunFiles
from pipeline.results import DomainFacts, assemble
from tests.beside import load

DOMAINS = ("books", "health", "clothing", "beauty", "toys", "industrial", "games", "music")
MEAN_RANK = {
    "popularity": 260.0,
    "popularity_7d": 230.0,
    "item_knn": 130.0,
    "sasrec_bce": 105.0,
    "sasrec": 95.0,
    "mamba2rec": 94.0,
    "hstu": 93.0,
    "hstu_time": 92.5,
    "hydra_ids": 92.0,
    "hydra_frozen": 88.0,
    "hydra_single": 84.0,
    "hydra_joint": 76.0,
    "oracle": 40.0,
}
REFUSED = [
    {"file": "events.csv", "line": 19, "reason": "3 fields", "row": "u1,i1,5"},
    {"file": "events.csv", "line": 23, "reason": "the time is not a number", "row": "u1,i1,soon"},
]
ASKED = ("popularity", "sasrec", "hydra_single", "hydra_joint")


chromium = load(Path(__file__).with_name("chromium.py"))


@pytest.fixture(scope="session")
def made_up_run() -> Callable[..., RunFiles]:
    """made_up_run(domains, models, item_llm): the files of a run."""
    return build


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium; tests that need it are skipped where none is installed."""
    program = chromium.installed()
    if program is None:
        pytest.skip(f"needs a browser to lay the page out: none of {', '.join(chromium.NAMES)}")
    with chromium.running(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def build(domains=DOMAINS[:5], models=ASKED, item_llm=True, users=900, seeds=1) -> RunFiles:
    interactions = {name: 900_000 // (place + 1) ** 2 for place, name in enumerate(domains)}
    mean = sum(interactions.values()) / len(interactions)
    groups = {n: "large" if count >= mean else "small" for n, count in interactions.items()}
    ranks = {
        name: {
            model: [drawn(model, place, users // (place + 1), seed) for seed in range(seeds)]
            for model in models
        }
        for place, name in enumerate(domains)
    }
    facts = {
        name: DomainFacts(groups[name], count // 8, count // 25, count)
        for name, count in interactions.items()
    }
    metrics = assemble(
        ranks,
        facts,
        EvaluationConfig(bootstrap_resamples=300),
        buckets={name: bucketed(users // (place + 1)) for place, name in enumerate(domains)},
        config_hash="4f1c" * 16,
        data_fingerprint="90ab" * 16,
    )
    return RunFiles(
        metrics=metrics,
        run=run_card(item_llm) | ({"seeds": list(range(seeds))} if seeds > 1 else {}),
        curves=training_curves(domains, models, item_llm),
        data=data_facts(domains, interactions, groups),
        examples=examples(domains, models, item_llm),
    )


def bucketed(users: int) -> dict[str, dict[str, Any]]:
    """Every third user has a cold target, and nobody one of 6 to 10 events, or a long history."""
    place = np.arange(users)
    short = place % 2 == 0
    return {
        "history": {"1-5": short, "6-20": ~short, "51+": np.zeros(users, dtype=bool)},
        "item": {"cold": place % 3 == 0, "tail": place % 3 == 1, "head": place % 3 == 2},
        "taken": {
            "0": place % 3 == 0,
            "1-2": place % 3 == 1,
            "51+": place % 3 == 2,
            "6-10": np.zeros(users, dtype=bool),
        },
    }


def examples(domains, models, item_llm) -> dict[str, Any]:
    def item(domain: str, number: int, **more: Any) -> dict[str, Any]:
        # Every seventh item has no text.
        text = f"Tin kettle {number} of {domain}, 2 litres" if number % 7 else ""
        return {"domain": domain, "item": f"{domain}-{number}", "text": text, **more}

    def user(domain: str, rank: int) -> dict[str, Any]:
        return {
            "domain": domain,
            "user": f"main:somebody-{rank}",
            "history": [item(domain, n) for n in range(1, 9)],
            "history_events": 23,
            "target": item(domain, 40 + rank),
            "top": [item(domain, 40 + n) for n in range(1, 11)],
            "ranks": {m: {"best": rank + place, "ties": 1} for place, m in enumerate(models)},
        }

    def near(numbers, domain: str) -> list[dict[str, Any]]:
        return [item(domain, n, cosine=0.9 - n / 100) for n in numbers]

    shown = [user(domain, rank) for rank in (3, 14) for domain in domains][:10]
    for entry in shown:
        entry["ranks"][models[-1]]["best"] = int(entry["target"]["item"].split("-")[-1]) - 40
    items = [
        item(domain, 1, among=99, of=420)
        | {"before": near(range(2, 7), domain), "after": near(range(4, 9), domain)}
        for domain in domains[:3]
    ]
    return {
        "users": {"model": models[-1], "users": shown},
        "neighbours": {"items": items} if item_llm else None,
    }


def drawn(model: str, place: int, n: int, seed: int = 0) -> Ranks:
    """Ranks that share their users' luck, so that models differ as paired models do.

    In the first domain joint training helps everybody, in the second it hurts.
    """
    luck = np.random.default_rng(place).exponential(1.0, n) ** 1.6
    noise = np.random.default_rng([place, len(model), *([seed] if seed else [])]).lognormal(
        0, 0.5, n
    )
    scale = MEAN_RANK.get(model, 150.0)
    if model == "hydra_joint" and place < 2:
        scale = (60.0, 128.0)[place]
    best = (luck * noise * scale).astype(np.int64) + 1
    return Ranks(best=best, ties=np.ones(n, np.int64))


def run_card(item_llm: bool) -> dict[str, Any]:
    stages = [
        ("read", "reused", 0.4, 410),
        ("corpus", "reused", 0.2, 380),
        ("tune item LLM", "ran", 212.7, 2890),
        ("embed items", "resumed", 96.1, 1420),
        ("train hydra_single", "ran", 74.9, 990),
        ("train hydra_joint", "ran", 88.2, 1105),
        ("evaluate", "ran", 12.6, 870),
        ("report", "ran", 1.1, None),
    ]
    return {
        "name": "demo",
        "started": "2026-03-14T09:26:53Z",
        "seconds": 492.3,
        "versions": {"python": "3.11.9", "torch": "2.13.0", "ray": "2.60.0", "deepspeed": "0.19.8"},
        "git": "0123456789ab",
        "seed": 7,
        "stages": [
            {
                "name": name,
                "status": status,
                "seconds": seconds,
                "made_in_seconds": seconds * 40 if status == "reused" else seconds,
                "path": f"{name}-00ff",
                "peak_mb": peak,
            }
            for name, status, seconds, peak in stages
        ],
        "adapter": {"sha256": "ab" * 32, "path": "adapter"} if item_llm else None,
        "cache": {"version": 3, "fingerprint": "cd" * 16, "encoded": 1200, "reused": 48_310},
        "hardware": {"machine": "x86_64", "cores": 2, "memory_gb": 15.6, "gpus": []},
        "parameters": {
            "sasrec": {"total": 812_345, "non_embedding": 101_248},
            "hydra_joint": {"total": 2_812_345, "non_embedding": 64_512},
        },
        "choices": {
            "hydra_joint": {"all": tried(0.1912, 0.1804)},
            "sasrec": {"books": tried(0.1707, 0.1742), "games": tried(0.1581, 0.1502)},
        },
    }


def tried(*figures: float) -> list[dict[str, Any]]:
    return [
        {
            "settings": {"dropout": dropout},
            "validation_ndcg@10": figure,
            "best_epoch": 9,
            "epochs": 20,
            "chosen": figure == max(figures),
        }
        for dropout, figure in zip((0.3, 0.5), figures, strict=True)
    ]


def training_curves(domains, models, item_llm) -> dict[str, Any]:
    noise = np.random.default_rng(0).normal(0, 0.08, 160)
    llm = {
        "base": "smollm2",
        "steps": [
            {"step": s + 1, "loss": 1.1 + 2.4 * 0.985**s + float(noise[s]), "lr": 1e-4}
            for s in range(160)
        ],
        "held_out": {
            "pairs": 2048,
            "before": {"loss": 4.8112, "hit@10": 0.0913, "mrr": 0.0431},
            "after": {"loss": 3.2071, "hit@10": 0.2144, "mrr": 0.1022},
        },
        "mean_cosine": 0.8123,
        "adapter_sha256": "ab" * 32,
        "zero_stage": 2,
        "workers": 2,
    }
    return {
        "item_llm": llm if item_llm else None,
        "user_models": {
            model: {
                scope: epochs(len(model) + place, 6 + 2 * place)
                for place, scope in enumerate(["all"] if model == "hydra_joint" else domains)
            }
            for model in models
            if model.startswith(("hydra", "sasrec", "mamba2rec", "hstu"))
        },
    }


def epochs(seed: int, n: int) -> list[dict[str, Any]]:
    noise = np.random.default_rng(seed).normal(0, 0.0008, n)
    return [
        {
            "epoch": e + 1,
            "loss": 2.1 + 3.2 * 0.7**e + seed / 20,
            "ndcg@10": 0.09 * (1 - 0.6**e) - 0.0006 * e + seed / 900 + float(noise[e]),
            "seconds": 5.0,
            "lr": 1e-3,
        }
        for e in range(n)
    ]


def data_facts(domains, interactions, groups) -> dict[str, Any]:
    return {
        "domains": {
            name: {
                "source": "simulated marketplace",
                "order": "sequence" if place == 4 else "time",
                "size_group": groups[name],
                "users": interactions[name] // 8,
                "items": interactions[name] // 25,
                "interactions": interactions[name],
                "mean_history": 8.24,
                "median_history": 6.0,
                "shortest_history": 3,
                "longest_history": 412,
                "rows_read": interactions[name] + 17,
                "rejected": {"the time is not a number": 2, "3 fields": 5} if place == 0 else {},
                "first_refused": REFUSED if place == 0 else [],
                "removed_by_kcore": 12,
                "removed_duplicates": 0,
                "a_count_of_tomorrow": 77,
                "empty_texts": place,
            }
            for place, name in enumerate(domains)
        },
        "shared_users": {f"{domains[0]} & {domains[-1]}": 2054} if len(domains) > 1 else {},
        "split": {"kind": "strict", "max_history": 50, "test_from": None},
    }
