import logging
import signal
import subprocess
import sys
import threading

import lance
import numpy as np
import pytest

from item_llm import EncoderConfig, ItemEncoder, Snapshot
from item_llm.cache import EmbeddingCache, RefreshReport, text_key

FROZEN, TUNED = "a" * 64, "b" * 64
DIM = 6


def made_up(count, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return [f"item {i}" for i in range(count)], vectors


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache.open(tmp_path / "vectors", FROZEN, DIM)


class CountingEncoder:
    fingerprint = FROZEN

    def __init__(self):
        self.seen = []

    def encode(self, texts):
        self.seen += texts
        return np.array([[len(t)] * DIM for t in texts], dtype=np.float32)


def test_what_is_committed_is_there_after_reopening(cache, tmp_path):
    texts, vectors = made_up(50)
    assert cache.missing(texts) == texts
    assert cache.commit([(texts[:30], vectors[:30]), (texts[30:], vectors[30:])]) == 50
    again = EmbeddingCache.open(tmp_path / "vectors", FROZEN, DIM)
    assert len(again) == 50
    assert again.missing(["  item   7 ", "new", "new", "item 8"]) == ["new"]
    snapshot = again.snapshot(texts, tmp_path / "snapshot")
    np.testing.assert_array_equal(snapshot.vectors, vectors)


def test_duplicates_are_stored_once_and_the_first_vector_stays(cache, tmp_path):
    texts, vectors = made_up(4)
    assert cache.commit([(texts, vectors), (texts, vectors + 1)]) == 4
    assert cache.commit([(["twice", " twice"], vectors[:2])]) == 1
    keys = lance.dataset(tmp_path / "vectors" / f"{FROZEN}.lance").to_table()["key"].to_pylist()
    assert len(keys) == len(set(keys)) == 5
    np.testing.assert_array_equal(cache.snapshot(texts, tmp_path / "s").vectors, vectors)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_and_batches_before_stay(cache, value):
    texts, vectors = made_up(4)
    vectors[3, 2] = value
    with pytest.raises(ValueError, match=r"1 of 2 vectors are not finite, .* 'item 3'"):
        cache.commit([(texts[:2], vectors[:2]), (texts[2:], vectors[2:])])
    assert cache.missing(texts) == ["item 2", "item 3"]


@pytest.mark.parametrize(
    "vectors",
    [np.zeros((2, DIM + 1), np.float32), np.zeros((1, DIM), np.float32), np.zeros((2, DIM))],
    ids=["width", "count", "float64"],
)
def test_vectors_of_another_shape_or_type_are_refused(cache, vectors):
    with pytest.raises(ValueError, match=r"expected float32 \[2, 6\]"):
        cache.commit([(["a", "b"], vectors)])
    assert len(cache) == 0


def test_refresh_encodes_what_is_missing_and_nothing_else(cache):
    encoder = CountingEncoder()
    assert cache.refresh(["a", "bb", "a "], encoder) == RefreshReport(2, 0, 0, cache.version)
    report = cache.refresh(["bb", "ccc", "a"], encoder)
    assert (report.encoded, report.reused, report.removed) == (1, 2, 0)
    assert encoder.seen == ["a", "bb", "ccc"]
    pruned = cache.refresh(["ccc"], encoder, prune=True)
    assert (pruned.encoded, pruned.reused, pruned.removed) == (0, 1, 2)
    assert cache.missing(["a", "bb", "ccc"]) == ["a", "bb"]


def test_an_encoder_never_touches_another_encoders_table(cache, tmp_path):
    class Tuned(CountingEncoder):
        fingerprint = TUNED

    with pytest.raises(ValueError, match=rf"fingerprint is {TUNED}.*{FROZEN}"):
        cache.refresh(["a"], Tuned())
    other = EmbeddingCache.open(tmp_path / "vectors", TUNED, DIM)
    other.refresh(["a"], Tuned())
    assert cache.missing(["a"]) == ["a"]
    assert text_key(FROZEN, "a") != text_key(TUNED, "a")


def test_a_table_of_another_width_raises(cache, tmp_path):
    with pytest.raises(ValueError, match=r"'dim': '6'.*'dim': '7'"):
        EmbeddingCache.open(tmp_path / "vectors", FROZEN, 7)


@pytest.mark.parametrize("fingerprint", ["", "../x", "A" * 64])
def test_a_malformed_fingerprint_names_no_folder(tmp_path, fingerprint):
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        EmbeddingCache.open(tmp_path, fingerprint, DIM)


def test_object_stores_are_refused_clearly():
    with pytest.raises(ValueError, match=r"s3://bucket/vectors.*only local folders"):
        EmbeddingCache.open("s3://bucket/vectors", FROZEN, DIM)


@pytest.mark.parametrize("damage", ["empty", "half"])
def test_a_torn_newest_manifest_is_removed_with_a_warning(cache, tmp_path, caplog, damage):
    texts, vectors = made_up(9)
    cache.commit([(texts[:5], vectors[:5]), (texts[5:], vectors[5:])])
    versions = tmp_path / "vectors" / f"{FROZEN}.lance" / "_versions"
    newest = min(versions.glob("*.manifest"))  # Lance counts its names down
    raw = newest.read_bytes()
    newest.write_bytes(b"" if damage == "empty" else raw[: len(raw) // 2])
    with caplog.at_level(logging.WARNING):
        again = EmbeddingCache.open(tmp_path / "vectors", FROZEN, DIM)
    assert "version 3 is torn" in caplog.text
    assert again.missing(texts) == texts[5:]
    again.commit([(texts[5:], vectors[5:])])
    np.testing.assert_array_equal(again.snapshot(texts, tmp_path / "s").vectors, vectors)


def test_a_table_without_a_readable_version_raises(cache, tmp_path):
    versions = tmp_path / "vectors" / f"{FROZEN}.lance" / "_versions"
    next(versions.glob("*.manifest")).write_bytes(b"")
    with pytest.raises(ValueError, match="no earlier version"):
        EmbeddingCache.open(tmp_path / "vectors", FROZEN, DIM)


def test_many_committers_at_once_leave_no_duplicate(tmp_path):
    texts, vectors = made_up(60)

    def work(start):
        mine = EmbeddingCache.open(tmp_path, FROZEN, DIM)
        for i in range(start, start + 30, 10):
            mine.commit([(texts[i : i + 20], vectors[i : i + 20])])

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = lance.dataset(tmp_path / f"{FROZEN}.lance").to_table()["key"].to_pylist()
    assert len(rows) == len(set(rows)) == 60


def test_a_second_object_sees_what_the_first_committed(cache, tmp_path):
    other = EmbeddingCache.open(tmp_path / "vectors", FROZEN, DIM)
    texts, vectors = made_up(3)
    cache.commit([(texts, vectors)])
    assert other.missing(texts) == []


def test_many_small_commits_are_compacted(cache, tmp_path):
    texts, vectors = made_up(70)
    cache.commit((texts[i : i + 1], vectors[i : i + 1]) for i in range(70))
    cache.refresh(texts, CountingEncoder())
    dataset = lance.dataset(tmp_path / "vectors" / f"{FROZEN}.lance")
    assert len(dataset.get_fragments()) == 1
    np.testing.assert_array_equal(cache.snapshot(texts, tmp_path / "s").vectors, vectors)


COMMITTER = """
import sys
import numpy as np
from item_llm.cache import EmbeddingCache

cache = EmbeddingCache.open(sys.argv[1], "a" * 64, 6)
for b in range(int(sys.argv[2]), 100_000):
    texts = [f"{b}-{i}" for i in range(50)]
    cache.commit([(texts, np.full((50, 6), b, dtype=np.float32))])
    print(b, flush=True)
"""


def test_kill_9_loses_no_acknowledged_commit(tmp_path):
    rng, acknowledged, start = np.random.default_rng(0), [], 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMITTER, str(tmp_path), str(start)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(int(rng.integers(1, 12))):
            acknowledged.append(int(process.stdout.readline()))
        threading.Event().wait(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().split()]
        process.wait()
        start = acknowledged[-1] + 1
        cache = EmbeddingCache.open(tmp_path, FROZEN, DIM)
        wanted = [f"{b}-{i}" for b in acknowledged for i in range(50)]
        assert cache.missing(wanted) == []
        assert len(cache) % 50 == 0, "half of a batch was stored"
        keys = lance.dataset(tmp_path / f"{FROZEN}.lance").to_table()["key"].to_pylist()
        assert len(keys) == len(set(keys))
    expected = np.repeat(acknowledged, 50).astype(np.float32)
    np.testing.assert_array_equal(cache.snapshot(wanted, tmp_path / "s").vectors[:, 0], expected)


def test_a_real_encoder_through_the_cache(tiny_llama, tmp_path, item_texts):
    encoder = ItemEncoder.load(EncoderConfig(base=str(tiny_llama)))
    cache = EmbeddingCache.open(tmp_path, encoder.fingerprint, encoder.dim)
    report = cache.refresh(item_texts, encoder)
    assert (report.encoded, report.reused) == (64, 0)
    order = [f" {text} " for text in reversed(item_texts)] + item_texts[:1]
    snapshot = cache.snapshot(order, tmp_path / "snapshot")
    np.testing.assert_allclose(snapshot.vectors, encoder.encode(order), atol=1e-6)
    assert isinstance(snapshot, Snapshot)
