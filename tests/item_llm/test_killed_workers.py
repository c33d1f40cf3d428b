"""SIGKILL of one of two workers that fine-tune together, at each ZeRO stage."""

import pytest
from zero_launch import Killed, rms_ratio, torchrun

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 8
POINTS = {
    "between two checkpoints": {"rank": 1, "step": 5},
    "within a save": {"rank": 0, "touch": 3},
    "after the last step": {"rank": 1, "step": 8},
}


def job(out, stage, **more):
    finetuning = {"zero_stage": stage, "max_steps": STEPS, "checkpoint_every": 2}
    return {"name": f"{stage}", "finetuning": finetuning, "held_out": 0} | more


@pytest.mark.parametrize("stage", range(4))
def test_a_worker_killed_at_three_points_changes_no_bit(tiny_llama, tmp_path, stage):
    (whole := tmp_path / "whole").mkdir()
    torchrun(2, tiny_llama, whole, [job(whole, stage)])
    place = {"checkpoints": str(tmp_path / "checkpoints")}
    for point in POINTS.values():
        with pytest.raises(Killed):
            torchrun(2, tiny_llama, tmp_path, [job(tmp_path, stage, kill=point, **place)])
    torchrun(2, tiny_llama, tmp_path, [job(tmp_path, stage, **place)])
    assert rms_ratio(tmp_path / f"adapter-{stage}", whole / f"adapter-{stage}") == 0
