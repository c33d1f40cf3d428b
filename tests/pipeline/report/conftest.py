"""A made-up run, assembled by the project's own code, for the tests of what readers see."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation import EvaluationConfig
from pipeline.metrics import Ranks
from pipeline.results import DomainFacts, assemble

DOMAINS = ("books", "health", "clothing", "beauty", "toys", "industrial", "games", "music")
MEAN_RANK = {
    "popularity": 260.0,
    "popularity_7d": 230.0,
    "item_knn": 130.0,
    "sasrec_bce": 105.0,
    "sasrec": 95.0,
    "hydra_ids": 92.0,
    "hydra_frozen": 88.0,
    "hydra_single": 84.0,
    "hydra_joint": 76.0,
    "oracle": 40.0,
}
ASKED = ("popularity", "sasrec", "hydra_single", "hydra_joint")


@pytest.fixture
def made_up_run() -> Callable[..., dict[str, Any]]:
    """made_up_run(domains, models, item_llm): the four dicts that `render` takes."""
    return build


def build(domains=DOMAINS[:5], models=ASKED, item_llm=True, users=900) -> dict[str, Any]:
    interactions = {name: 900_000 // (place + 1) ** 2 for place, name in enumerate(domains)}
    mean = sum(interactions.values()) / len(interactions)
    groups = {n: "large" if count >= mean else "small" for n, count in interactions.items()}
    ranks = {
        name: {model: drawn(model, place, users // (place + 1)) for model in models}
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
        config_hash="4f1c" * 16,
        data_fingerprint="90ab" * 16,
    )
    return {
        "metrics": metrics,
        "run": run_card(item_llm),
        "curves": training_curves(domains, models, item_llm),
        "data": data_facts(domains, interactions, groups),
    }


def drawn(model: str, place: int, n: int) -> Ranks:
    """Ranks that share their users' luck, so that models differ as paired models do.

    In the first domain joint training helps everybody, in the second it hurts.
    """
    luck = np.random.default_rng(place).exponential(1.0, n) ** 1.6
    noise = np.random.default_rng([place, len(model)]).lognormal(0, 0.5, n)
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
    }


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
            if model.startswith(("hydra", "sasrec"))
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
                "rows_read": interactions[name] + 17,
                "rejected": {"the time is not a number": 3} if place == 0 else {},
                "removed_by_kcore": 12,
                "empty_texts": place,
            }
            for place, name in enumerate(domains)
        },
        "shared_users": {f"{domains[0]} & {domains[-1]}": 2054} if len(domains) > 1 else {},
        "split": {"kind": "strict", "max_history": 50, "test_from": None},
    }
