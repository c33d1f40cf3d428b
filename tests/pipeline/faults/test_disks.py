"""Disks that are full, too small for a file, or read-only: a sentence, no half file, and the next
run, on a disk that will do, ends with the figures of a run that had one from the start."""

import errno
import os
import subprocess
from contextlib import contextmanager

import pytest

from pipeline.storage.disk import disk_error
from tests.pipeline.faults.drivers import SASREC, Driver

pytestmark = pytest.mark.faults
SECONDS = 10.0  # of CPU, from the start to the sentence


def slow(*values):
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run whose disk has room."""
    driver = Driver(tmp_path_factory.mktemp("whole") / "run", SASREC)
    assert driver.start() == 0
    return driver


def sizes(folder):
    """Bytes of the files of a store as they were finished, in that order."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    files.sort(key=lambda path: path.stat().st_mtime_ns)
    return [path.stat().st_size for path in files]


@contextmanager
def small_disk(folder, size):
    """A file system of so many bytes in memory; skipped where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def expect_refused(driver, status, state):
    sentence, seconds = driver.last_words
    assert status == 2, driver.log.read_text()
    assert sentence.startswith("error: the disk of "), sentence
    assert state in sentence
    assert "give the same command again" in sentence
    assert "Traceback" not in driver.log.read_text()
    assert seconds < SECONDS
    assert driver.half_made() == []


@pytest.mark.parametrize("share", [*slow(0.1, 0.4, 0.6, 0.9), 0.8])
def test_a_full_disk_is_said_and_costs_nothing(tmp_path, whole, share):
    """The store fills up in another stage each time."""
    place = tmp_path / "disk"
    pages = sum(-(-size // 4096) for size in sizes(whole.store)) + 40  # folders, files aside
    with small_disk(place, 4096 * max(1, int(share * pages))):
        driver = Driver(tmp_path / "run", SASREC, place / "store")
        expect_refused(driver, driver.start(), "is full")
        remount(place, "size=100m")
        assert driver.start() == 0
        assert driver.metrics == whole.metrics
        assert set(driver.made.values()) == {1}


@pytest.mark.parametrize("share", [*slow(0.25, 0.35, 0.9), 0.6])
def test_a_file_that_may_not_grow_so_large_is_said_and_costs_nothing(tmp_path, whole, share):
    """A limit on the size of a file needs no rights: it is what a full disk is to the writer."""
    driver = Driver(tmp_path / "run", SASREC)
    limit = int(share * max(sizes(whole.store)))
    expect_refused(driver, driver.start(largest_file=limit), "takes no file of this size")
    assert driver.start() == 0
    assert driver.metrics == whole.metrics
    assert set(driver.made.values()) == {1}


@pytest.mark.parametrize("begun", [*slow(False), True])
def test_a_read_only_store_is_said_and_left_as_it_was(tmp_path, whole, begun):
    place = tmp_path / "disk"
    with small_disk(place, "100m"):
        driver = Driver(tmp_path / "run", SASREC, place / "store")
        if begun:
            assert driver.start(("train.sasrec.books", 5)) < 0
        remount(place, "ro")
        before = sorted(path.relative_to(place) for path in place.rglob("*"))
        expect_refused(driver, driver.start(), "is read-only")
        assert sorted(path.relative_to(place) for path in place.rglob("*")) == before
        remount(place, "rw")
        assert driver.start() == 0
        assert driver.metrics == whole.metrics
        assert set(driver.made.values()) == {1}


def test_results_that_find_no_room_are_said_and_written_the_next_time(tmp_path, whole):
    place = tmp_path / "disk"
    with small_disk(place, "100k"):
        driver = Driver(tmp_path / "run", SASREC)
        driver.run_dir = place / "results"
        driver.arguments[-1] = str(driver.run_dir)
        expect_refused(driver, driver.start(), "is full")
        assert not driver.metrics, "it is the sign of a whole run"
        remount(place, "size=10m")
        assert driver.start() == 0
        assert driver.metrics == whole.metrics


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "of /data/x is full"),
        (OSError("1048576 requested and 131056 written"), "of /store is full"),  # numpy
        (RuntimeError("I/O error: No space left on device (os error 28)"), "of /store is full"),
        (OSError("LanceError(IO): Read-only file system (os error 30), lib.rs:1"), "is read-only"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "has no more room for this user"),
        (OSError(errno.EIO, "Input/output error"), "does not answer"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "may not be used"),
    ],
)
def test_every_librarys_word_for_it_is_understood(error, state):
    assert state in str(disk_error(error, "/store", "train"))
    later = RuntimeError("the worker failed")
    later.__cause__ = error
    assert state in str(disk_error(later, "/store"))


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "absent"),
        ValueError("[Errno 28] is what I read"),
        KeyError(28),
    ],
)
def test_other_errors_are_left_as_they_are(error):
    assert disk_error(error, "/store") is None
