"""The cache under torn files, killed processes and several writers at once."""

import logging
import multiprocessing
import random
import signal
import time

import lance
import numpy as np
import pytest

from item_llm.cache import EmbeddingCache
from item_llm.lance_table import LanceTable
from item_llm.text_keys import keys_of
from item_llm.vector_rows import rows_of, vector_schema

pytestmark = pytest.mark.faults
FINGERPRINT = "a" * 64
DIM = 8
BATCH = 40
# A server of clean processes: each starts in milliseconds, with the imports done and no threads.
START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["item_llm.cache", "lance"])


class Stub:
    """A vector that only its text decides."""

    fingerprint = FINGERPRINT

    def encode(self, texts):
        seeds = (int.from_bytes(text.encode()[-8:], "little") for text in texts)
        rows = [np.random.default_rng(seed).standard_normal(DIM) for seed in seeds]
        return np.array(rows, dtype=np.float32).reshape(-1, DIM)


def opened(folder):
    return EmbeddingCache.open(folder, FINGERPRINT, DIM)


def batch(number):
    return [f"item {number:05d}-{i:03d}" for i in range(BATCH)]


def rows_and_keys(folder):
    keys = lance.dataset(folder / FINGERPRINT / "vectors.lance").to_table(columns=["key"])["key"]
    return len(keys), len(keys.unique())


# ---- torn files


@pytest.fixture
def table(tmp_path):
    """Three versions: empty, the first batch, the second batch."""
    cache = opened(tmp_path)
    cache.commit((batch(n), Stub().encode(batch(n))) for n in range(2))
    return tmp_path / FINGERPRINT / "vectors.lance"


def newest(table, pattern):
    return max(table.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def tear(path, how):
    raw = path.read_bytes()
    torn = {"empty": b"", "half": raw[: len(raw) // 2], "zeros": bytes(len(raw))}
    path.write_bytes(torn[how])


@pytest.mark.parametrize("how", ["empty", "half", "zeros"])
@pytest.mark.parametrize("pattern", ["_versions/*.manifest", "data/*.lance"])
def test_a_torn_newest_version_is_set_aside_and_the_one_before_it_is_whole(
    table, tmp_path, caplog, pattern, how
):
    tear(newest(table, pattern), how)
    with caplog.at_level(logging.WARNING):
        cache = opened(tmp_path)
    assert "version 3 is torn" in caplog.text
    assert cache.missing(batch(0) + batch(1)) == batch(1)
    assert len(list((table / ".torn").iterdir())) == 1
    cache.commit([(batch(1), Stub().encode(batch(1)))])
    everything = batch(0) + batch(1)
    snapshot = opened(tmp_path).snapshot(everything, tmp_path / "s")
    np.testing.assert_array_equal(snapshot.vectors, Stub().encode(everything))


@pytest.mark.parametrize("how", ["empty", "half", "zeros"])
def test_a_torn_transaction_file_loses_nothing(table, tmp_path, how):
    for path in table.glob("_transactions/*.txn"):
        tear(path, how)
    cache = opened(tmp_path)
    assert cache.missing(batch(0) + batch(1) + batch(2)) == batch(2)
    cache.refresh(batch(2), Stub())
    assert opened(tmp_path).missing(batch(0) + batch(1) + batch(2)) == []


def test_a_torn_hint_of_the_newest_version_loses_nothing(table, tmp_path):
    for how in ("empty", "half", "zeros"):
        tear(table / "_versions" / "latest_version_hint.json", how)
        assert opened(tmp_path).missing(batch(0) + batch(1)) == []


def test_an_old_torn_data_file_is_named_and_nothing_is_set_aside(table, tmp_path):
    oldest = min(table.glob("data/*.lance"), key=lambda path: path.stat().st_mtime_ns)
    tear(oldest, "half")
    before = sorted(path.name for path in (table / "_versions").iterdir())
    with pytest.raises(ValueError, match=rf"data/{oldest.name}.*no earlier version.*delete"):
        opened(tmp_path)
    assert sorted(path.name for path in (table / "_versions").iterdir()) == before


def test_a_table_without_a_readable_version_names_the_file(tmp_path):
    opened(tmp_path)
    manifest = next((tmp_path / FINGERPRINT).glob("vectors.lance/_versions/*.manifest"))
    tear(manifest, "half")
    with pytest.raises(ValueError, match=rf"{manifest.name}: version 1 .*no earlier version"):
        opened(tmp_path)


# ---- killed processes


def work_until_killed(folder, acknowledge, first, seed):
    """Commit, commit again, tag, compact, clean up; tell each batch once it is durable."""
    acknowledge.send(-1)
    cache, draw = opened(folder), random.Random(seed)
    for number in range(first, 1_000_000):
        for each in (number, max(0, number - 1)):  # the second is there already
            cache.commit([(batch(each), Stub().encode(batch(each)))])
        acknowledge.send(number)
        what = draw.random()
        if what < 0.15:
            cache.tag(f"run-{number}")
        elif what < 0.3:
            cache.drop_old_versions()


def killed_in(whole, share, pace, folder, first, seed):
    """Kill a process at `share` of the time of a batch after `whole` acknowledged ones.

    Returns the acknowledged batches, and the seconds of one, here and now (before: `pace`).
    """
    told, acknowledge = START.Pipe(duplex=False)
    process = START.Process(target=work_until_killed, args=(folder, acknowledge, first, seed))
    process.start()
    acknowledge.close()
    assert told.recv() == -1
    began = time.monotonic()
    numbers = [told.recv() for _ in range(whole)]
    if whole:
        pace = (time.monotonic() - began) / whole
    time.sleep(share * pace)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with told:
        while True:
            try:
                numbers.append(told.recv())
            except (EOFError, OSError):  # the end, perhaps within a message
                return numbers, pace


@pytest.mark.parametrize(
    "kills", [12, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_kill_9_at_any_moment_loses_and_doubles_nothing(tmp_path, kills):
    draw, acknowledged, seconds, pace = random.Random(kills), [], [], None
    for kill in range(kills):
        first = acknowledged[-1] + 1 if acknowledged else 0
        whole = draw.randint(0, 3) if pace else 1
        more, pace = killed_in(whole, draw.uniform(0, 1.5), pace, tmp_path, first, kill)
        acknowledged += more
        began = time.monotonic()
        cache = opened(tmp_path)
        seconds.append(time.monotonic() - began)
        wanted = [text for number in acknowledged for text in batch(number)]
        assert cache.missing(wanted) == [], "an acknowledged row is lost"
        assert len(cache) % BATCH == 0, "a part of a commit is there"
        rows, keys = rows_and_keys(tmp_path)
        assert rows == keys == len(cache)
        assert not list(tmp_path.rglob(".torn")), "a kill tears no file: nothing is set aside"
    assert len(acknowledged) >= kills, "the processes were killed before they did anything"
    snapshot = cache.snapshot(wanted, tmp_path / "s")
    np.testing.assert_array_equal(snapshot.vectors, Stub().encode(wanted))
    print(
        f"{kills} kills, {len(acknowledged)} acknowledged batches; opened again in "
        f"{np.median(seconds):.3f} s, at most {max(seconds):.3f}"
    )


# ---- writers at once


def overlapping(writer, turn):
    """Forty of the sixty texts that all writers meet in at this turn."""
    return [f"{turn}-{i}" for i in random.Random(1000 * writer + turn).sample(range(60), 40)]


def commit_with_the_lock(folder, writer, start):
    cache = opened(folder)
    start.wait()
    for turn in range(12):
        texts = overlapping(writer, turn)
        cache.commit([(texts, Stub().encode(texts))])


def insert_without_the_lock(folder, writer, start, schema):
    table = LanceTable(str(folder / FINGERPRINT / "vectors.lance"), schema)
    table.open({})
    start.wait()
    for turn in range(12):
        texts = overlapping(writer, turn)
        keys = keys_of(FINGERPRINT, texts)
        rows = rows_of(keys, Stub().encode(texts), np.arange(len(texts)), schema)
        table.reopen()
        table.insert(rows)


def after_four_writers(folder, work, *args):
    """Rows, distinct keys, and how many of the writers ended in an error."""
    start = START.Barrier(4)
    writers = [START.Process(target=work, args=(folder, n, start, *args)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return *rows_and_keys(folder), sum(writer.exitcode != 0 for writer in writers)


def distinct_texts():
    return len({text for n in range(4) for turn in range(12) for text in overlapping(n, turn)})


def test_four_committers_leave_no_duplicate(tmp_path):
    wanted = distinct_texts()
    assert after_four_writers(tmp_path, commit_with_the_lock) == (wanted, wanted, 0)


def without_the_lock(folder, schema):
    (folder / FINGERPRINT).mkdir()
    LanceTable(str(folder / FINGERPRINT / "vectors.lance"), schema).open({})
    return after_four_writers(folder, insert_without_the_lock, schema)


def test_four_writers_without_the_lock_leave_no_duplicate(tmp_path):
    wanted = distinct_texts()
    assert without_the_lock(tmp_path, vector_schema(DIM)) == (wanted, wanted, 0)


def test_without_the_primary_key_there_are_duplicates_and_the_writers_notice(tmp_path):
    schema = vector_schema(DIM)
    rows, keys, failed = without_the_lock(
        tmp_path, schema.set(0, schema.field(0).remove_metadata())
    )
    assert rows > keys
    assert failed > 0
