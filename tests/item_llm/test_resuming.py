"""A training that was cut off goes on with as many workers as before, with others, or sharded anew.

Real DeepSpeed ZeRO over gloo. Steps 1 to 10 run on two workers, 11 to 20 on one, 21 to 30 on two.
"""

import shutil

import numpy as np
import pytest
from zero_launch import assert_same_losses, losses, rms_ratio, torchrun

pytestmark = pytest.mark.faults
STAGES = (1, 2, 3)


def jobs(folder, *, stop=None, suffix=""):
    return [
        {
            "name": f"{stage}{suffix}",
            "finetuning": {"zero_stage": stage, "checkpoint_every": 10},
            "checkpoints": str(folder / f"checkpoints-{stage}{suffix}"),
            **({"stop": stop} if stop else {}),
        }
        for stage in STAGES
    ]


@pytest.fixture(scope="module")
def trainings(tiny_llama, tmp_path_factory):
    """Curves of one uninterrupted training a stage, of its resumptions; and their folder."""
    out = tmp_path_factory.mktemp("resuming")
    whole = torchrun(2, tiny_llama, out, [*jobs(out, suffix="-whole"), *jobs(out, stop=11)])
    for stage in STAGES:
        names = [path.name for path in (out / f"checkpoints-{stage}").iterdir()]
        assert names == ["step-10"]
        shutil.copytree(out / f"checkpoints-{stage}", out / f"checkpoints-{stage}-same")
    crossed = {**jobs(out)[1], "name": "crossed", "stop": 15}
    shutil.copytree(out / "checkpoints-3", out / "checkpoints-crossed")
    crossed["checkpoints"] = str(out / "checkpoints-crossed")
    alone = torchrun(1, tiny_llama, out, [*jobs(out, stop=21), crossed])
    last = torchrun(2, tiny_llama, out, [*jobs(out), *jobs(out, suffix="-same")])
    return out, {**whole, **{f"{name}-alone": report for name, report in alone.items()}}, last


@pytest.mark.parametrize("stage", STAGES)
def test_with_as_many_workers_it_is_bit_identical(trainings, stage):
    out, before, after = trainings
    assert losses(after[f"{stage}-same"]) == losses(before[f"{stage}-whole"])[10:]
    assert rms_ratio(out / f"adapter-{stage}-same", out / f"adapter-{stage}-whole") == 0


@pytest.mark.parametrize("stage", STAGES)
def test_from_two_workers_to_one_and_back_the_curve_goes_on(trainings, stage):
    out, before, after = trainings
    parts = (before[f"{stage}"], before[f"{stage}-alone"], after[f"{stage}"])
    assert [len(losses(part)) for part in parts] == [10, 10, 10]
    curve = [loss for part in parts for loss in losses(part)]
    whole = losses(before[f"{stage}-whole"])
    assert curve[:10] == whole[:10]
    np.testing.assert_allclose(curve[10:14], whole[10:14], rtol=2e-5)
    assert_same_losses(curve, whole)
    assert rms_ratio(out / f"adapter-{stage}", out / f"adapter-{stage}-whole") < 1e-2


def test_a_checkpoint_of_stage_3_goes_on_at_stage_2(trainings):
    _, before, _ = trainings
    curve = losses(before["crossed-alone"])
    np.testing.assert_allclose(curve, losses(before["3-whole"])[10:14], rtol=2e-5)
