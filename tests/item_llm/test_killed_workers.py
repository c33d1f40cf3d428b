"""SIGKILL of one of two workers that fine-tune together, at each ZeRO stage."""

import pytest
from zero_launch import Killed, rms_ratio, torchrun

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 8
POINTS = {
    "between two checkpoints": {"rank": 1, "step": 5},
    "within a save": {"rank": 0, "touch": 14},
    "after the last step": {"rank": 1, "step": 8},
}


def job(out, stage, **more):
    finetuning = {"zero_stage": stage, "max_steps": STEPS, "checkpoint_every": 2}
    return {"name": f"{stage}", "finetuning": finetuning, "held_out": 0} | more


@pytest.fixture(scope="module")
def whole_groups(tiny_llama, tmp_path_factory):
    """The adapters of trainings by two workers that nobody killed, one a stage."""
    out = tmp_path_factory.mktemp("groups")
    torchrun(2, tiny_llama, out, [job(out, stage) for stage in range(4)])
    return out


@pytest.mark.parametrize("stage", range(4))
def test_a_worker_killed_at_three_points_changes_no_bit(tiny_llama, tmp_path, whole_groups, stage):
    place = {"checkpoints": str(tmp_path / "checkpoints")}
    for point in POINTS.values():
        with pytest.raises(Killed):
            torchrun(2, tiny_llama, tmp_path, [job(tmp_path, stage, kill=point, **place)])
    torchrun(2, tiny_llama, tmp_path, [job(tmp_path, stage, **place)])
    assert rms_ratio(tmp_path / f"adapter-{stage}", whole_groups / f"adapter-{stage}") == 0
