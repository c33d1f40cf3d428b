"""An item LLM's training that is killed, told to stop, or finds its checkpoints torn.

Real DeepSpeed ZeRO. What is left of the adapter's training decides: its bits, or an error.
"""

import logging
import multiprocessing
import shutil
import signal

import numpy as np
import pytest
import torch

from item_llm import ItemLLMConfig, ItemPairs, finetune
from item_llm.finetune_result import StoppedError
from tests.item_llm.tiny_models import item_pairs, item_texts
from tests.pipeline.faults.fatal_touch import FirstStep, die_at_touch
from tests.pipeline.faults.torn_files import TEARS, tear

pytestmark = pytest.mark.faults
START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["item_llm", "transformers", "peft", "accelerate", __name__])
STEPS = 8
FILES = ("manifest.json", "parameters.safetensors", "optimizer.safetensors")


def trained(base, folder, on_step=None, should_stop=None, every=2):
    """The adapter's sha256, from whatever the folder of checkpoints holds."""
    torch.set_num_threads(1)
    config = ItemLLMConfig.model_validate(
        {
            "encoder": {"base": str(base)},
            "lora": {"dropout": 0.1},
            "finetuning": {
                **{"pairs_per_step": 8, "max_steps": STEPS, "zero_stage": 2},
                "checkpoint_every": every,
            },
        }
    )
    pairs = ItemPairs(*item_pairs(60, seed=0))
    result = finetune(
        config,
        pairs,
        pairs[np.array([], dtype=np.int64)],
        item_texts(),
        folder / "adapter",
        on_step=None if on_step is None else lambda step, loss, rate: on_step(step),
        checkpoint_dir=folder / "checkpoints",
        should_stop=should_stop,
    )
    return result.adapter_sha256


@pytest.fixture(scope="module")
def whole(tiny_llama, tmp_path_factory):
    """The bits of a training that was left alone."""
    return trained(tiny_llama, tmp_path_factory.mktemp("whole"))


class StopHereError(Exception):
    pass


@pytest.fixture(scope="module")
def stopped(tiny_llama, tmp_path_factory):
    """The checkpoints of steps 4 and 6."""

    def stop(step):
        if step == 7:
            raise StopHereError

    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(StopHereError):
        trained(tiny_llama, folder, stop)
    return folder


@pytest.fixture
def folder(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


@pytest.mark.parametrize("how", TEARS)
@pytest.mark.parametrize("file", FILES)
def test_a_torn_checkpoint_costs_the_steps_since_the_one_before(
    tiny_llama, folder, whole, file, how, caplog
):
    tear(folder / "checkpoints" / "step-6" / file, how)
    steps = []
    with caplog.at_level(logging.WARNING):
        assert trained(tiny_llama, folder, steps.append) == whole
    assert "damaged-step-6, the checkpoint before it is used" in caplog.text
    assert steps == [5, 6, 7, 8]
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert left == ["damaged-step-6", "step-6", "step-8"]


def test_where_all_are_torn_it_never_begins_anew_without_a_word(tiny_llama, folder):
    for checkpoint in (folder / "checkpoints").glob("step-*"):
        tear(checkpoint / "optimizer.safetensors", "flipped")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"every checkpoint is damaged.*remove the folder"):
            trained(tiny_llama, folder)


@pytest.mark.parametrize("asked", [1, 5])
def test_told_to_stop_it_writes_a_checkpoint_and_goes_on_to_the_same_bits(
    tiny_llama, tmp_path, whole, asked
):
    answers = iter([False] * (asked - 1) + [True])
    done = []
    with pytest.raises(StoppedError, match=f"did, after {asked}"):
        trained(tiny_llama, tmp_path, done.append, lambda: next(answers), every=STEPS)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"step-{asked}"]
    assert trained(tiny_llama, tmp_path, done.append, every=STEPS) == whole
    assert done == list(range(1, STEPS + 1)), "no step is lost, none done twice"


def be_killed(base, folder, touch):
    die_at_touch(folder, touch)
    trained(base, folder)


@pytest.mark.parametrize(
    "touches",
    [
        pytest.param((6, 21), id="two"),
        pytest.param(
            range(0, 36, 3), id="twelve", marks=[pytest.mark.slow, pytest.mark.timeout(900)]
        ),
    ],
)
def test_killed_at_any_touch_of_a_file_it_ends_with_the_same_bits(
    tiny_llama, tmp_path, whole, touches
):
    seconds = []
    for touch in touches:
        folder = tmp_path / str(touch)
        folder.mkdir()
        process = START.Process(target=be_killed, args=(tiny_llama, folder, touch))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        step = FirstStep()
        assert trained(tiny_llama, folder, step) == whole
        seconds.append(step.seconds)
        assert touch < 12 or step.number != 1, "it went on from a checkpoint"
        assert not list(folder.glob("*/.*"))
    print(f"{len(touches)} kills; at work again in {np.median(seconds):.2f} s")
