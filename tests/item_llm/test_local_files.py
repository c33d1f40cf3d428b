"""What is synced, and what is left out because an earlier sync had it."""

import os
import time

import pytest

from item_llm import local_files
from item_llm.local_files import LocalFiles

MINUTE = 60 * 10**9


@pytest.fixture
def synced(monkeypatch, tmp_path):
    """The names that were synced, in order; without the mark of the last sync and its folder."""
    names = []

    def note(path):
        if path != tmp_path and path.name != ".synced":
            names.append(path.name)

    monkeypatch.setattr(local_files, "fsync_path", note)
    return names


def write(folder, name, age):
    """A file that was last written `age` ns ago."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(name)
    then = time.time_ns() - age
    os.utime(path, ns=(then, then))


def test_without_a_sync_before_all_is_synced_data_first(tmp_path, synced):
    write(tmp_path, "_versions/1.manifest", 10 * MINUTE)
    write(tmp_path, "data/old.lance", 100 * MINUTE)
    write(tmp_path, "data/.tmp-new", 0)  # unfinished: it will be renamed
    LocalFiles(tmp_path).sync()
    assert synced == ["old.lance", "data", "1.manifest", "_versions"]


def test_only_what_is_older_than_the_last_sync_by_a_minute_is_left_out(tmp_path, synced):
    LocalFiles(tmp_path).sync()  # of nothing: its mark says now
    synced.clear()
    write(tmp_path, "data/before.lance", 11 * MINUTE // 10)
    write(tmp_path, "data/within.lance", 9 * MINUTE // 10)
    write(tmp_path, "data/after.lance", 0)
    LocalFiles(tmp_path).sync()
    assert set(synced) == {"within.lance", "after.lance", "data"}


def test_a_sync_that_fails_leaves_no_mark(tmp_path, monkeypatch, request):
    write(tmp_path, "data/one.lance", 10 * MINUTE)

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(local_files, "fsync_path", full)
    with pytest.raises(OSError, match="No space left"):
        LocalFiles(tmp_path).sync()
    synced = request.getfixturevalue("synced")
    LocalFiles(tmp_path).sync()
    assert synced == ["one.lance", "data"]


def test_one_object_syncs_a_file_once_and_again_where_it_grew(tmp_path, synced):
    files = LocalFiles(tmp_path)
    write(tmp_path, "data/one.lance", 0)
    files.sync()
    files.sync()
    assert synced == ["one.lance", "data"]
    (tmp_path / "data/one.lance").write_text("longer than it was")
    files.sync()
    assert synced == ["one.lance", "data"] * 2
