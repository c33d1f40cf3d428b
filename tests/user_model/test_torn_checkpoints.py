"""A user model's training that is killed, told to stop, or finds its checkpoints torn.

Whatever happens it ends with the bits of a training that was left alone, or with an error: it never
begins at step 0 without a word.
"""

import hashlib
import logging
import multiprocessing
import shutil
import signal

import numpy as np
import pytest
import torch

from tests.pipeline.faults.fatal_touch import FirstStep, die_at_touch
from tests.pipeline.faults.torn_files import TEARS, tear
from tests.user_model.conftest import walks
from user_model import Hydra, HydraConfig, ItemTable, Recommender, TrainingConfig, train
from user_model.checkpoint import CheckpointError
from user_model.progress import StoppedError

pytestmark = pytest.mark.faults
START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["user_model", "tests.user_model.conftest", __name__])
DOMAINS = np.array([0, 30, 50], dtype=np.int64)
FIGURES = {1: 0.5, 2: 0.7, 3: 0.6}
FILES = ("manifest.json", "model.safetensors", "optimizer.safetensors", "best.safetensors")


def trained(folder, on_step=None, should_stop=None, checkpoint_steps=2):
    """sha256 of the weights of a training of three epochs, from whatever the folder holds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Recommender(ItemTable(50, 16), Hydra(HydraConfig(dim=16, layers=1, dropout=0.1)))
    config = TrainingConfig(
        epochs=3, batch_tokens=128, negatives=16, negatives_tile=32, lr=0.01, warmup_steps=5,
        checkpoint_steps=checkpoint_steps, ema_decay=0.8,
    )  # fmt: skip
    epoch = [0]

    def told(record):
        epoch[0] = record.epoch
        if on_step is not None:
            on_step(record.step)

    train(
        model, walks(50, DOMAINS, np.random.default_rng(0)), DOMAINS, config, seed=0,
        checkpoint_dir=folder, on_step=told, validate=lambda _: FIGURES[epoch[0]],
        should_stop=should_stop,
    )  # fmt: skip
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bits of a training that was left alone, and its number of steps."""
    steps = []
    return trained(tmp_path_factory.mktemp("whole"), steps.append), len(steps)


class StopHereError(Exception):
    pass


@pytest.fixture(scope="module")
def stopped(whole, tmp_path_factory):
    """A folder with the last two checkpoints of a training that broke off in its third epoch."""

    def stop(step):
        if step == whole[1] - 1:
            raise StopHereError

    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(StopHereError):
        trained(folder, stop)
    return folder


@pytest.fixture
def folder(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "fit")


def newest(folder):
    return max(folder.glob("step-*"))


@pytest.mark.parametrize("how", TEARS)
@pytest.mark.parametrize("file", FILES)
def test_a_torn_checkpoint_costs_the_steps_since_the_one_before(folder, whole, file, how, caplog):
    kept, torn = sorted(folder.glob("step-*"))
    tear(torn / file, how)
    steps = []
    with caplog.at_level(logging.WARNING):
        assert trained(folder, steps.append) == whole[0]
    assert f"damaged-{torn.name}, the checkpoint before it is used" in caplog.text
    assert steps[0] == int(kept.name.removeprefix("step-")) + 1
    assert (folder / f"damaged-{torn.name}").is_dir(), "nothing is thrown away"


def test_where_all_are_torn_it_never_begins_anew_without_a_word(folder):
    for checkpoint in folder.glob("step-*"):
        tear(checkpoint / "optimizer.safetensors", "flipped")
    for _ in range(2):
        with pytest.raises(
            CheckpointError, match=r"every checkpoint is damaged.*remove the folder"
        ):
            trained(folder)


def test_what_a_kill_left_half_written_is_swept(folder, whole):
    orphan = folder / ".step-000000099.4711"
    orphan.mkdir()
    (orphan / "model.safetensors").write_bytes(b"half")
    assert trained(folder) == whole[0]
    assert not orphan.exists()
    assert len(list(folder.iterdir())) == 2, "the last two checkpoints, and nothing else"


@pytest.mark.parametrize("asked", [1, 3, 6])
def test_told_to_stop_it_writes_a_checkpoint_and_goes_on_to_the_same_bits(tmp_path, whole, asked):
    """In the middle of an epoch: its checkpoints are written at the ends alone."""
    answers = iter([False] * (asked - 1) + [True])
    done, after = [], []
    with pytest.raises(StoppedError, match="was told to stop"):
        trained(tmp_path, done.append, lambda: next(answers), checkpoint_steps=None)
    assert newest(tmp_path).name == f"step-{done[-1]:09d}"
    assert trained(tmp_path, after.append, checkpoint_steps=None) == whole[0]
    assert done + after == list(range(1, whole[1] + 1)), "no step is lost, none done twice"


def be_killed(folder, touch):
    die_at_touch(folder, touch)
    trained(folder)


@pytest.mark.parametrize(
    "touches",
    [
        pytest.param((2, 20, 22, 26), id="few"),
        pytest.param(range(40), id="every", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_killed_at_any_touch_of_a_save_it_ends_with_the_same_bits(tmp_path, whole, touches):
    """A checkpoint has some ten touches; those of the next ones are tried too."""
    seconds = []
    for touch in touches:
        folder = tmp_path / str(touch)
        folder.mkdir()
        process = START.Process(target=be_killed, args=(folder, touch))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        step = FirstStep()
        assert trained(folder, step) == whole[0]
        seconds.append(step.seconds)
        assert touch < 12 or step.number != 1, "it went on from a checkpoint"
        assert len(list(folder.iterdir())) == 2
    print(f"{len(touches)} kills; at work again in {np.median(seconds):.2f} s")
