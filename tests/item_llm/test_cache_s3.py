"""The cache in an object store: a real moto server, spoken to over HTTP."""

import multiprocessing

import numpy as np
import pytest

from item_llm.cache import EmbeddingCache

FINGERPRINT = "a" * 64
DIM = 6
# Not "forkserver": its server, once started by another test, has an environment without the bucket.
START = multiprocessing.get_context("spawn")


def made_up(count, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return [f"item {i}" for i in range(count)], vectors


def test_what_is_committed_is_there_after_reopening(bucket, tmp_path):
    texts, vectors = made_up(30)
    cache = EmbeddingCache.open(bucket, FINGERPRINT, DIM)
    assert cache.missing(texts) == texts
    assert cache.commit([(texts[:20], vectors[:20]), (texts[10:], vectors[10:])]) == 30
    again = EmbeddingCache.open(f"{bucket}/", FINGERPRINT, DIM)
    assert again.missing([*texts, "new"]) == ["new"]
    np.testing.assert_array_equal(again.snapshot(texts, tmp_path / "s").vectors, vectors)


def test_tags_and_old_versions(bucket, tmp_path):
    texts, vectors = made_up(10)
    cache = EmbeddingCache.open(bucket, FINGERPRINT, DIM)
    cache.commit([(texts, vectors)])
    kept = cache.tag("run")
    cache.drop_old_versions()
    assert cache.tags() == {"run": kept}
    assert cache.snapshot(texts, tmp_path / "s", tag="run").table_version == kept


def test_another_width_and_an_absent_bucket_are_clear(bucket):
    EmbeddingCache.open(bucket, FINGERPRINT, DIM)
    with pytest.raises(ValueError, match=r"'dim': '6'.*'dim': '7'"):
        EmbeddingCache.open(bucket, FINGERPRINT, DIM + 1)
    with pytest.raises(ValueError, match="s3://no-such-bucket/v"):
        EmbeddingCache.open("s3://no-such-bucket/v", FINGERPRINT, DIM)


def commit_own(address, writer, together):
    """One vector of its own into ten caches, each begun by all writers at the same moment."""
    texts, vectors = made_up(3)
    for number in range(10):
        together.wait(60)  # not for ever, if another failed
        cache = EmbeddingCache.open(f"{address}/{number}", FINGERPRINT, DIM)
        cache.commit([(texts[writer : writer + 1], vectors[writer : writer + 1])])


def test_writers_that_begin_at_once_lose_nothing(bucket):
    together = START.Barrier(3)
    run_all(commit_own, [(bucket, writer, together) for writer in range(3)])
    for number in range(10):
        assert len(EmbeddingCache.open(f"{bucket}/{number}", FINGERPRINT, DIM)) == 3


def commit_some(address, writer):
    cache = EmbeddingCache.open(address, FINGERPRINT, DIM)
    texts, vectors = made_up(60)
    for i in range(writer, writer + 30, 10):
        cache.commit([(texts[i : i + 20], vectors[i : i + 20])])


def test_three_writers_leave_no_duplicate(bucket):
    run_all(commit_some, [(bucket, start) for start in (0, 10, 20)])
    assert len(EmbeddingCache.open(bucket, FINGERPRINT, DIM)) == 60


def run_all(work, arguments):
    writers = [START.Process(target=work, args=given) for given in arguments]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
