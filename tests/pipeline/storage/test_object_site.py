"""A stage's folders on a machine that shares nothing with the driver's but the object store."""

import pickle

import pytest

from pipeline.storage.bucket import Bucket, StorageError
from pipeline.storage.copies import silent
from pipeline.storage.mirror import mirror_of
from pipeline.storage.object_runs import ObjectRunStore

KEY, MADE = "0" * 64, "1" * 64


@pytest.fixture
def driver(bucket, tmp_path):
    return ObjectRunStore(bucket, tmp_path / "driver")


@pytest.fixture
def on_machine(monkeypatch, tmp_path):
    """Work as on the machine of this name."""

    def on_machine(name):
        monkeypatch.setenv("HYDRAREC_CACHE", str(tmp_path / name))

    return on_machine


@pytest.fixture
def site(driver):
    """The site of a stage that reads a corpus, as a worker gets it; and the driver's folder."""
    with driver.working_folder("corpus", KEY) as work:
        (work / "events").write_text("1 2 3")
        corpus = driver.commit("corpus", KEY, work, {})
    work = driver.root / ".work" / "train"
    work.mkdir()
    made = driver.site("train", MADE, work, work / ".scratch", {"corpus": corpus})
    return pickle.loads(pickle.dumps(made)), work  # noqa: S301 - as Ray sends it


def leave(folders, step, **files):
    for old in folders.scratch.glob("step-*"):
        old.unlink()
    (folders.scratch / f"step-{step}").write_text(f"weights after {step}")
    for name, text in files.items():
        (folders.output / name).write_text(text)
    folders.keep()


def test_workers_read_inputs_and_the_driver_gets_their_output(site, on_machine, bucket, driver):
    stage, work = site
    on_machine("node")
    with stage.folders(0, silent) as folders:
        assert (folders.inputs["corpus"] / "events").read_text() == "1 2 3"
        assert folders.inputs["corpus"].is_relative_to(mirror_of(bucket))
        leave(folders, 1)
        (folders.output / "weights").write_text("trained")
    assert not list((mirror_of(bucket) / ".work").glob("*.worker-*")), "it goes with the block"
    stage.collect(silent)
    assert (work / "weights").read_text() == "trained"
    assert not (work / ".scratch").exists(), "checkpoints stay in the store"
    driver.commit("train", MADE, work, {})
    assert not Bucket(bucket).sizes("train-1111111111111111/begun")


def test_a_new_machine_goes_on_from_the_last_checkpoint(site, on_machine, driver):
    stage, work = site
    on_machine("first")
    with pytest.raises(RuntimeError), stage.folders(0, silent) as folders:
        leave(folders, 1)
        leave(folders, 2, half="half")
        (folders.scratch / "step-3").write_text("not kept yet")
        raise RuntimeError("the machine is gone")
    assert driver.state("train", MADE) == "begun"
    on_machine("second")
    for rank in (0, 1):
        with stage.folders(rank, silent) as folders:
            found = {path.name: path.read_text() for path in folders.scratch.iterdir()}
            assert found == {"step-2": "weights after 2"}
            assert (folders.output / "half").read_text() == "half"
    driver.site("train", MADE, work, work / ".scratch", {})
    assert (work / ".scratch").is_dir(), "the driver says `resumed`"


def test_only_worker_0_leaves_something(site, on_machine):
    stage, work = site
    on_machine("node")
    with stage.folders(1, silent) as folders:
        (folders.output / "mine").write_text("of rank 1")
    stage.collect(silent)
    assert not (work / "mine").exists()


def test_a_kill_during_an_upload_leaves_the_checkpoint_before(site, on_machine, monkeypatch):
    stage, _ = site

    def killed(*_, **__):
        raise KeyboardInterrupt

    on_machine("first")
    with pytest.raises(KeyboardInterrupt), stage.folders(0, silent) as folders:
        leave(folders, 1)
        with monkeypatch.context() as kill:
            kill.setattr(Bucket, "write", killed)  # files are up, their list is not
            leave(folders, 2)
    on_machine("second")
    with stage.folders(0, silent) as folders:
        assert [path.name for path in folders.scratch.iterdir()] == ["step-1"]


def test_a_damaged_checkpoint_is_said_and_the_work_begins_anew(site, on_machine, bucket, caplog):
    stage, _ = site
    on_machine("first")
    with pytest.raises(RuntimeError), stage.folders(0, silent) as folders:
        leave(folders, 1)
        raise RuntimeError("the machine is gone")
    (target,) = Bucket(bucket).sizes("train-1111111111111111/begun/")
    Bucket(bucket).write(target, b"x" * Bucket(bucket).sizes(target)[target])
    on_machine("second")
    with stage.folders(0, silent) as folders:
        assert not list(folders.scratch.iterdir())
    assert "is begun anew" in caplog.text


@pytest.mark.parametrize(
    "damaged",
    [b'{"files"', b"[]", b'{"files": {"../out": {"bytes": 1, "sha256": "00"}}}'],
    ids=["cut", "of another kind", "leads out"],
)
def test_a_damaged_list_is_said_and_the_work_begins_anew(damaged, site, on_machine, bucket, caplog):
    stage, _ = site
    on_machine("first")
    with stage.folders(0, silent) as folders:
        leave(folders, 1)
    Bucket(bucket).write("train-1111111111111111/begun.json", damaged)
    with stage.folders(0, silent) as folders:
        assert not list(folders.scratch.iterdir())
    assert "begun.json is damaged" in caplog.text


def test_a_damaged_input_is_set_aside_and_named(site, on_machine, bucket, driver):
    stage, _ = site
    (target,) = (key for key in Bucket(bucket).sizes("") if "events" in key)
    Bucket(bucket).write(target, b"1 2 4")  # of the same size
    on_machine("node")
    with pytest.raises(StorageError, match=r"events.* has sha256 .*Give the same command again"):
        stage.input("corpus")
    assert Bucket(bucket).sizes(".damaged/corpus-0000000000000000.0/")
    assert driver.find("corpus", KEY) is not None, "the driver's mirror is whole: put there again"
    assert (stage.input("corpus") / "events").read_text() == "1 2 3"


def test_folders_of_killed_workers_are_removed(site, on_machine, bucket):
    stage, _ = site
    on_machine("node")
    left = mirror_of(bucket) / ".work" / "train-1111111111111111.worker-dead"
    left.mkdir(parents=True)
    with stage.folders(0, silent) as first, stage.folders(1, silent) as second:
        assert not left.exists()
        assert first.output.is_dir()
        assert second.output.is_dir()
