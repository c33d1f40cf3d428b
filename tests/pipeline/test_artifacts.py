import json
import multiprocessing

import pytest

from pipeline.artifacts import DamagedArtifactError, RunStore
from pipeline.locks import BusyError, exclusive_lock
from pipeline.whole_files import content_hash, file_sha256

KEY = "ab" * 32


def make(store, text="hello"):
    with store.working_folder("corpus", KEY) as work:
        (work / "sub").mkdir()
        (work / "sub" / "items.txt").write_text(text)
        return store.commit("corpus", KEY, work, {"seed": 1})


def test_content_hash_depends_on_values_not_on_order():
    assert content_hash({"a": 1, "b": [2, 3]}) == content_hash({"b": [2, 3], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})


def test_committed_output_is_found_again_whole(tmp_path):
    store = RunStore(tmp_path / "store")
    assert store.find("corpus", KEY) is None
    made = make(store)
    found = store.find("corpus", KEY)
    assert found == made
    assert list(found.files) == ["sub/items.txt"]
    assert found.files["sub/items.txt"]["sha256"] == file_sha256(found.path / "sub/items.txt")
    assert json.loads((found.path / "manifest.json").read_text())["recipe"] == {"seed": 1}


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["changed", "cut", "absent", "manifest"])
def test_damage_is_noticed_and_nothing_is_thrown_away(tmp_path, damage):
    store = RunStore(tmp_path / "store")
    folder = make(store).path
    target = folder / "sub" / "items.txt"
    match damage:
        case "changed":
            target.write_text("hullo")
        case "cut":
            target.write_text("hell")
        case "absent":
            target.unlink()
        case "manifest":
            (folder / "manifest.json").write_text('{"key": ')
    with pytest.raises(DamagedArtifactError, match="is damaged"):
        store.find("corpus", KEY)
    aside = store.set_aside("corpus", KEY)
    assert aside.is_dir()
    assert store.find("corpus", KEY) is None


@pytest.mark.parametrize("name", ["../other/secret", "sub/../../other/secret", "/etc/hostname"])
def test_a_manifest_cannot_name_a_file_outside_its_folder(tmp_path, name):
    store = RunStore(tmp_path / "store")
    folder = make(store).path
    secret = folder.parent / "other" / "secret"
    secret.parent.mkdir()
    secret.write_text("x")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["manifest_sha256"]  # whoever writes such a manifest would write a new one
    manifest["files"][name] = {"bytes": 1, "sha256": file_sha256(secret)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedArtifactError, match="which leads out of its folder"):
        store.find("corpus", KEY)


def test_user_error_leaves_the_store_as_it_was(tmp_path):
    store = RunStore(tmp_path / "store")
    with pytest.raises(ValueError, match="line 3"), store.working_folder("corpus", KEY) as work:
        (work / "half").write_text("half")
        raise ValueError("line 3 is broken")
    assert not store.root.exists()


@pytest.mark.faults
def test_crash_keeps_the_working_folder_for_the_next_attempt(tmp_path):
    store = RunStore(tmp_path / "store")
    with pytest.raises(RuntimeError), store.working_folder("corpus", KEY) as work:
        (work / "checkpoint").write_text("step 5")
        raise RuntimeError("worker died")
    assert store.find("corpus", KEY) is None
    with store.working_folder("corpus", KEY) as work:
        assert (work / "checkpoint").read_text() == "step 5"


def hold(path, ready, release):
    with exclusive_lock(path, wait=False):
        ready.set()
        release.wait()


@pytest.mark.faults
def test_lock_is_exclusive_names_its_owner_and_ends_with_the_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    owner = context.Process(target=hold, args=(tmp_path / "lock", ready, release))
    owner.start()
    assert ready.wait(30)
    with (
        pytest.raises(BusyError, match=f"process {owner.pid}"),
        exclusive_lock(tmp_path / "lock", wait=False),
    ):
        pass
    owner.kill()
    owner.join()
    with exclusive_lock(tmp_path / "lock", wait=False):
        pass
