import threading

import lance
import numpy as np
import pytest

from item_llm import EncoderConfig, ItemEncoder, Snapshot
from item_llm.cache import EmbeddingCache, RefreshReport
from item_llm.text_keys import keys_of, order_of, text_key

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
    table = tmp_path / "vectors" / FROZEN / "vectors.lance"
    keys = lance.dataset(table).to_table()["key"].to_pylist()
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


def test_vectors_that_are_all_zeros_are_refused(cache):
    texts, vectors = made_up(3)
    vectors[1] = 0
    with pytest.raises(ValueError, match=r"1 of 3 vectors are all zeros, .* 'item 1'"):
        cache.commit([(texts, vectors)])
    assert cache.missing(texts) == texts


def test_keys_are_of_the_fingerprint_and_the_normalised_text():
    keys = keys_of(FROZEN, ["a  b", "a b ", "c"])
    assert [key.hex() for key in keys.to_pylist()] == [
        text_key(FROZEN, "a b"),
        text_key(FROZEN, "a b"),
        text_key(FROZEN, "c"),
    ]
    assert order_of(keys) == order_of(keys_of(FROZEN, ["a b", "a b", "c"]))
    assert order_of(keys.slice(1)) == order_of(keys_of(FROZEN, ["a b", "c"]))
    assert order_of(keys.slice(1)) != order_of(keys.slice(0, 2))


def test_a_tagged_version_outlives_pruning_and_compaction(cache, tmp_path):
    texts, vectors = made_up(20)
    cache.commit([(texts[:10], vectors[:10]), (texts[10:], vectors[10:])])
    kept = cache.tag("run-1")
    assert cache.tags() == {"run-1": kept}
    assert cache.keep_only(keys_of(FROZEN, texts[:5])) == 15
    assert cache.drop_old_versions() > 0
    again = EmbeddingCache.open(tmp_path / "vectors", FROZEN, DIM)
    assert again.missing(texts) == texts[5:]
    table = lance.dataset(tmp_path / "vectors" / FROZEN / "vectors.lance")
    assert [entry["version"] for entry in table.versions()] == [kept, again.version]
    old = again.snapshot(texts, tmp_path / "s", tag="run-1")
    np.testing.assert_array_equal(old.vectors, vectors)
    assert old.table_version == kept
    with pytest.raises(ValueError, match=r"no version is tagged 'run-2'; the tags are run-1"):
        again.snapshot(texts, tmp_path / "s", tag="run-2")


def test_a_tag_moves_to_the_version_it_is_given_last(cache):
    texts, vectors = made_up(2)
    cache.commit([(texts[:1], vectors[:1])])
    first = cache.tag("run")
    cache.commit([(texts[1:], vectors[1:])])
    assert cache.tag("run") > first
    assert cache.tags() == {"run": cache.version}


def test_a_vector_that_was_changed_behind_its_checksum_is_not_handed_out(cache, tmp_path):
    texts, vectors = made_up(3)
    cache.commit([(texts, vectors)])
    dataset = lance.dataset(tmp_path / "vectors" / FROZEN / "vectors.lance")
    dataset.update({"vector": "arrow_cast([1.0,1.0,1.0,1.0,1.0,1.0],'FixedSizeList(6,Float32)')"},
                   where=f"key = X'{text_key(FROZEN, 'item 1')}'")  # fmt: skip
    with pytest.raises(ValueError, match=text_key(FROZEN, "item 1")):
        cache.snapshot(texts, tmp_path / "s")


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
    rows = lance.dataset(tmp_path / FROZEN / "vectors.lance").to_table()["key"].to_pylist()
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
    dataset = lance.dataset(tmp_path / "vectors" / FROZEN / "vectors.lance")
    assert len(dataset.get_fragments()) == 1
    np.testing.assert_array_equal(cache.snapshot(texts, tmp_path / "s").vectors, vectors)


def test_a_real_encoder_through_the_cache(tiny_llama, tmp_path, item_texts):
    encoder = ItemEncoder.load(EncoderConfig(base=str(tiny_llama)))
    cache = EmbeddingCache.open(tmp_path, encoder.fingerprint, encoder.dim)
    report = cache.refresh(item_texts, encoder)
    assert (report.encoded, report.reused) == (64, 0)
    order = [f" {text} " for text in reversed(item_texts)] + item_texts[:1]
    snapshot = cache.snapshot(order, tmp_path / "snapshot")
    np.testing.assert_allclose(snapshot.vectors, encoder.encode(order), atol=1e-6)
    assert isinstance(snapshot, Snapshot)
