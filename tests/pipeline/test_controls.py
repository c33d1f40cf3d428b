"""The pipeline's own controls: joint training wins where there is something to share, only there.

Each seed draws other shops, other people and other weights, so the spread over seeds holds what
an interval over users leaves out. Six whole runs, half an hour.
"""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console
from scipy import stats

from pipeline.config import load
from pipeline.progress import Progress
from pipeline.run import execute

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(5400)]
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SEEDS = (0, 1, 2)


def difference(name, seed, folder):
    """Joint minus single, NDCG@10, mean of the shops, and its interval over users."""
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    for domain in settings["domains"]:
        domain["source"]["seed"] = seed
    file = folder / f"{name}-{seed}.yaml"
    file.write_text(yaml.safe_dump(settings))
    config = load(file, ["--seed", str(seed), "--store", str(folder / "store")])
    outcome = execute(config, folder / f"{name}-{seed}", Progress(Console(file=StringIO())))
    found = outcome.metrics["group_deltas"]["all"]["hydra_joint"]
    assert found["against"] == "hydra_single"
    return found["ndcg@10"], *found["ci95"]


def interval(differences):
    """Mean and 95% interval over seeds (Student's t)."""
    mean = np.mean(differences)
    low, high = stats.t.interval(0.95, len(differences) - 1, loc=mean, scale=stats.sem(differences))
    return mean, low, high


def test_joint_training_wins_where_all_is_shared_and_not_where_nothing_is(tmp_path, ray_session):
    shared = [difference("positive_control", seed, tmp_path) for seed in SEEDS]
    apart = [difference("negative_control", seed, tmp_path) for seed in SEEDS]
    assert all(low > 0 for _, low, _ in shared), f"{shared}: joint must be better for every seed"
    assert all(low <= 0 for _, low, _ in apart), f"{apart}: nothing is shared, so it must not"
    won, low, _ = interval([mean for mean, _, _ in shared])
    assert low > 0, f"{shared}: the same people with the same taste, so joint must be better"
    for_nothing, low, high = interval([mean for mean, _, _ in apart])
    assert low <= 0 <= high, f"{apart}: nothing is shared, so the gain comes from elsewhere"
    assert abs(for_nothing) < won / 2, f"{apart} beside {shared}"
