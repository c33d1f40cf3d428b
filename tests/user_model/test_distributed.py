"""Real processes over gloo learn what one process learns."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from user_model.distributed import Workers

SCRIPT = Path(__file__).with_name("gloo_worker.py")


def in_processes(size, arrays, folder):
    """Train in `size` processes; return what each of them learned."""
    np.savez(folder / "histories.npz", **arrays)
    outputs = [folder / f"{rank}.json" for rank in range(size)]
    shared = [str(folder / "rendezvous"), str(folder / "histories.npz")]
    processes = [
        subprocess.Popen([sys.executable, SCRIPT, str(rank), str(size), *shared, str(output)])
        for rank, output in enumerate(outputs)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0] * size
    return [json.loads(output.read_text()) for output in outputs]


@pytest.mark.parametrize("size", [2, 4])
def test_several_workers_learn_what_one_learns(size, circles, domain_starts, tmp_path):
    arrays = {
        "offsets": circles.offsets, "items": circles.items, "domain_starts": domain_starts,
    }  # fmt: skip
    group = in_processes(size, arrays, tmp_path)
    # The last one learns from last targets alone: few a step, and Adam's division makes more of
    # the rounding of sums that are made in another order.
    bounds = {"hydra": 1e-5, "sasrec": 1e-5, "hydra_time": 5e-5}
    for name in bounds:
        alone = runpy.run_path(str(SCRIPT))["learn"](name, Workers(), arrays)
        expected = np.array(alone["weights"])
        for worker in group:
            assert worker[name]["losses"] == pytest.approx(alone["losses"], abs=bounds[name])
            error = np.array(worker[name]["weights"]) - expected
            assert np.sqrt((error**2).mean() / (expected**2).mean()) < 1e-4
            assert worker[name]["validations"] == [1.0] * 3
            assert worker[name]["weights"] == group[0][name]["weights"]
        assert alone["losses"][-1] < alone["losses"][0] - 0.1


def test_a_rank_outside_the_group_raises():
    with pytest.raises(ValueError, match="rank: got 2 of 2 workers"):
        Workers(2, 2)


def test_workers_without_a_process_group_raise():
    with pytest.raises(ValueError, match="got 2 and no process group"):
        Workers(0, 2).check()
