"""The run store in an object store: torn uploads, writers at once, kills, damage."""

import json
import multiprocessing
import os
import signal
import threading

import pytest

from pipeline.artifacts import MANIFEST, DamagedArtifactError
from pipeline.storage.bucket import Bucket, StorageError
from pipeline.storage.object_runs import ObjectRunStore

KEY = "0123456789abcdef" * 4
PREFIX = f"corpus-{KEY[:16]}"
FILES = {"sub/items.txt": "hello", "sub/manifest.json": "{}", "users.txt": "world"}
START = multiprocessing.get_context("spawn")


def make(store, files=FILES, name="corpus"):
    with store.working_folder(name, KEY) as work:
        return finish(store, work, files, name)


def finish(store, work, files=FILES, name="corpus"):
    for relative, text in files.items():
        (work / relative).parent.mkdir(parents=True, exist_ok=True)
        (work / relative).write_text(text)
    return store.commit(name, KEY, work, {"made": {"rows": 3}})


def contents(artifact):
    return {name: (artifact.path / name).read_text() for name in artifact.files}


@pytest.fixture
def machine(bucket, tmp_path):
    """A machine's view of the one store: each has a mirror of its own."""

    def machine(name):
        return ObjectRunStore(bucket, tmp_path / name)

    return machine


def test_another_machine_finds_what_was_finished(machine, bucket):
    assert machine("a").state("corpus", KEY) == "to do"
    assert machine("a").find("corpus", KEY) is None
    made = make(machine("a"))
    other = machine("b")
    assert other.state("corpus", KEY) == "done"
    assert other.at_hand("corpus", KEY) is None
    assert other.manifest("corpus", KEY)["recipe"]["made"] == {"rows": 3}
    assert other.read("corpus", KEY, "sub/manifest.json") == {}
    assert not other.root.exists(), "a plan writes nothing"
    found = other.find("corpus", KEY)
    assert contents(found) == contents(made) == FILES
    assert found.recipe == made.recipe
    assert found.path != made.path
    # The manifest, the files, and nothing of the making.
    assert set(Bucket(bucket).sizes("")) == {
        f"{PREFIX}/{MANIFEST}",
        *(f"{PREFIX}/files/{name}.{facts['sha256'][:16]}" for name, facts in made.files.items()),
    }


def test_transfers_are_told_in_megabytes(machine):
    told = []

    def tell(done, total, unit, info):
        told.append((done, total, unit, info))

    with machine("a").working_folder("corpus", KEY) as work:
        (work / "big").write_bytes(b"x" * 20_000_000)
        machine("a").commit("corpus", KEY, work, {}, tell)
    assert told[-1] == (20.0, 20.0, "MB", "uploading")
    machine("b").find("corpus", KEY, tell)
    assert told[-1] == (20.0, 20.0, "MB", "downloading")
    told.clear()
    make(machine("a"), name="small")
    machine("b").find("small", KEY, tell)
    assert not told


def test_without_its_manifest_an_output_is_not_there(machine, bucket):
    make(machine("a"))
    Bucket(bucket).delete([f"{PREFIX}/{MANIFEST}"])
    assert machine("b").find("corpus", KEY) is None
    assert machine("b").state("corpus", KEY) == "to do"


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["absent", "cut", "changed", "manifest", "other key"])
def test_damage_is_noticed_set_aside_and_made_again(damage, machine, bucket):
    make(machine("a"))
    objects = Bucket(bucket)
    (target,) = (key for key in objects.sizes("") if "items.txt" in key)
    match damage:
        case "absent":
            objects.delete([target])
        case "cut":
            objects.write(target, b"hell")
        case "changed":
            objects.write(target, b"hullo")
        case "manifest":
            objects.write(f"{PREFIX}/{MANIFEST}", b'{"key": ')
        case "other key":
            manifest = json.loads(objects.read(f"{PREFIX}/{MANIFEST}").data)
            objects.write(f"{PREFIX}/{MANIFEST}", json.dumps(manifest | {"key": "f"}).encode())
    before = objects.sizes("")
    other = machine("b")
    with pytest.raises(DamagedArtifactError, match=PREFIX):
        other.find("corpus", KEY)
    assert other.set_aside("corpus", KEY) == f"{bucket}/.damaged/{PREFIX}.0"
    assert objects.sizes("") == {f".damaged/{PREFIX}.0/{k[len(PREFIX) + 1 :]}": size
                                 for k, size in before.items()}  # fmt: skip
    assert other.find("corpus", KEY) is None
    make(other)
    assert contents(machine("c").find("corpus", KEY)) == FILES


def test_a_whole_mirror_replaces_what_was_damaged(machine, bucket):
    first = machine("a")
    make(first)
    (target,) = (key for key in Bucket(bucket).sizes("") if "items.txt" in key)
    Bucket(bucket).write(target, b"cut")
    with pytest.raises(DamagedArtifactError, match="has 3 bytes, expected 5"):
        first.find("corpus", KEY)
    first.set_aside("corpus", KEY)
    assert contents(first.find("corpus", KEY)) == FILES
    assert contents(machine("b").find("corpus", KEY)) == FILES


def test_a_damaged_mirror_is_fetched_again(machine, caplog):
    store = machine("a")
    folder = make(store).path
    (folder / "users.txt").write_text("wurst")
    assert contents(store.find("corpus", KEY)) == FILES
    assert "is fetched again" in caplog.text


def test_a_path_that_leads_out_of_the_mirror_is_refused(machine, bucket, tmp_path):
    make(machine("a"))
    manifest = json.loads(Bucket(bucket).read(f"{PREFIX}/{MANIFEST}").data)
    for path in ("../out", "/tmp/out", "a/../../out"):
        facts = {path: manifest["files"]["users.txt"]}
        text = json.dumps(manifest | {"files": facts}).encode()
        Bucket(bucket).write(f"{PREFIX}/{MANIFEST}", text)
        with pytest.raises(DamagedArtifactError, match="is not one within a folder"):
            machine("b").find("corpus", KEY)
    assert not (tmp_path / "out").exists()


def commit_own(address, mirror, writer, together):
    store = ObjectRunStore(address, mirror)
    work = mirror / "made"
    work.mkdir(parents=True)
    together.wait(60)
    made = finish(store, work, {"who": f"writer {writer}", "same": "same"})
    (mirror / "seen").write_text(json.dumps(contents(made)))


@pytest.mark.faults
def test_two_writers_of_one_output_end_with_the_same_whole_output(machine, bucket, tmp_path):
    together = START.Barrier(2)
    mirrors = [tmp_path / "a", tmp_path / "b"]
    run_all(commit_own, [(bucket, at, i, together) for i, at in enumerate(mirrors)])
    seen = [json.loads((at / "seen").read_text()) for at in mirrors]
    assert seen[0] == seen[1]
    assert contents(machine("c").find("corpus", KEY)) == seen[0]
    assert len(Bucket(bucket).sizes(f"{PREFIX}/files/")) == 2, "the loser's files are gone"


def wait_and_reuse(address, mirror):
    store, waited = ObjectRunStore(address, mirror), []
    with store.working_folder("corpus", KEY, on_wait=waited.append) as work:
        found = store.find("corpus", KEY)
        (mirror / "seen").write_text(json.dumps([waited, contents(found)]))
        assert not list(work.iterdir())


def test_a_second_machine_waits_for_the_one_that_makes_the_output(machine, bucket, tmp_path):
    store = machine("a")
    with store.working_folder("corpus", KEY) as work:
        other = START.Process(target=wait_and_reuse, args=(bucket, tmp_path / "b"))
        other.start()
        other.join(4)
        assert other.is_alive()
        finish(store, work)
    other.join(60)
    assert other.exitcode == 0
    waited, found = json.loads((tmp_path / "b" / "seen").read_text())
    assert [f"process {os.getpid()} on" in owner for owner in waited] == [True]
    assert found == FILES


def die_before_the_manifest(address, mirror):
    store = ObjectRunStore(address, mirror)
    write = store.bucket.write

    def kill(key, data, **condition):
        if key.endswith(MANIFEST):
            os.kill(os.getpid(), signal.SIGKILL)
        return write(key, data, **condition)

    store.bucket.write = kill
    make(store)


@pytest.mark.faults
def test_killed_between_upload_and_manifest_nothing_is_lost(machine, bucket, tmp_path, caplog):
    process = START.Process(target=die_before_the_manifest, args=(bucket, tmp_path / "a"))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    uploaded = Bucket(bucket).sizes(f"{PREFIX}/files/")
    assert len(uploaded) == 3
    # Elsewhere it was never there; and its machine ends the upload without making it again.
    assert machine("b").find("corpus", KEY) is None
    assert machine("a").state("corpus", KEY) == "done"
    assert contents(machine("a").find("corpus", KEY)) == FILES
    assert contents(machine("b").find("corpus", KEY)) == FILES


def test_after_a_kill_another_machine_makes_it_over_the_torn_upload(machine, bucket, tmp_path,
                                                                    monkeypatch):  # fmt: skip
    monkeypatch.setattr("pipeline.storage.lease.SILENT_SECONDS", 2.0)
    process = START.Process(target=die_before_the_manifest, args=(bucket, tmp_path / "a"))
    process.start()
    process.join(60)
    waited = []
    store = machine("b")
    with store.working_folder("corpus", KEY, on_wait=waited.append) as work:
        finish(store, work, FILES | {"users.txt": "new"})
    assert len(waited) == 1, "the lease of the one that died stood for a while"
    expected = FILES | {"users.txt": "new"}
    assert contents(machine("c").find("corpus", KEY)) == expected
    # The machine that died has another whole copy: what the store has is the output.
    assert contents(machine("a").find("corpus", KEY)) == expected


def test_the_same_machine_goes_on_at_once_after_a_kill(machine, bucket, tmp_path):
    process = START.Process(target=hold_and_die, args=(bucket, tmp_path / "a"))
    process.start()
    process.join(60)
    assert f"{PREFIX}/lease.json" in Bucket(bucket).sizes("")
    with machine("a").working_folder("corpus", KEY, on_wait=pytest.fail) as work:
        assert (work / "checkpoint").read_text() == "step 5"


def hold_and_die(address, mirror):
    with ObjectRunStore(address, mirror).working_folder("corpus", KEY) as work:
        (work / "checkpoint").write_text("step 5")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_users_error_leaves_the_store_as_it_was(machine, bucket):
    store = machine("a")
    with pytest.raises(ValueError, match="line 3"), store.working_folder("corpus", KEY) as work:
        (work / "half").write_text("half")
        raise ValueError("line 3 is broken")
    assert Bucket(bucket).sizes("") == {}
    assert not (store.root / ".work").exists()


def test_a_store_that_fails_in_the_middle_keeps_the_work(machine):
    store = machine("a")
    with pytest.raises(StorageError), store.working_folder("corpus", KEY) as work:
        (work / "checkpoint").write_text("step 5")
        raise StorageError("the network is gone")
    with store.working_folder("corpus", KEY) as work:
        assert (work / "checkpoint").read_text() == "step 5"


def test_threads_that_fetch_one_output_get_one_mirror(machine):
    make(machine("a"))
    store, found = machine("b"), []
    threads = [
        threading.Thread(target=lambda: found.append(contents(store.find("corpus", KEY))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [FILES] * 4


def run_all(work, arguments):
    processes = [START.Process(target=work, args=given) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
