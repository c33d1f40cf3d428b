import json

import numpy as np
import pytest

from item_llm import Snapshot
from item_llm.cache import EmbeddingCache

FINGERPRINT = "a" * 64


@pytest.fixture
def cache(tmp_path):
    cache = EmbeddingCache.open(tmp_path / "vectors", FINGERPRINT, 3)
    vectors = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    cache.commit([(["a", "b", "c", "d"], vectors)])
    return cache


@pytest.fixture
def folder(cache, tmp_path):
    cache.snapshot(["d", "a", "d"], tmp_path / "snapshot")
    return tmp_path / "snapshot"


def test_rows_follow_the_callers_order_and_may_repeat(folder, cache):
    snapshot = Snapshot.open(folder, fingerprint=FINGERPRINT, order=cache.order(["d", "a", "d"]))
    assert snapshot.vectors.tolist() == [[10, 11, 12], [1, 2, 3], [10, 11, 12]]
    assert snapshot.vectors.dtype == np.float32
    assert isinstance(snapshot.vectors, np.memmap)
    assert not snapshot.vectors.flags.writeable


def test_no_items_give_an_empty_snapshot(cache, tmp_path):
    assert cache.snapshot([], tmp_path / "none").vectors.shape == (0, 3)


def test_a_text_without_a_vector_raises(cache, tmp_path):
    with pytest.raises(
        ValueError, match=r"vectors\.lance version 2: no vector for 'zebra'; refresh"
    ):
        cache.snapshot(["a", "zebra"], tmp_path / "snapshot")
    assert not (tmp_path / "snapshot").exists()


def test_another_fingerprint_raises_with_both(folder):
    with pytest.raises(ValueError, match=f"fingerprint is {FINGERPRINT}, expected bbb"):
        Snapshot.open(folder, fingerprint="b" * 64)


@pytest.mark.parametrize("texts", [["a", "d", "d"], ["d", "a"], ["d", "a", "d", "d"]])
def test_another_order_or_count_raises_with_both(folder, cache, texts):
    expected = cache.order(texts)
    with pytest.raises(ValueError, match=f"order of items is [0-9a-f]{{64}}, expected {expected}"):
        Snapshot.open(folder, fingerprint=FINGERPRINT, order=expected)


def test_damaged_data_raise_where_every_byte_is_read(folder):
    data = folder / "vectors.f32"
    raw = bytearray(data.read_bytes())
    raw[5] ^= 1
    data.write_bytes(raw)
    with pytest.raises(ValueError, match=r"vectors\.f32: sha256 is"):
        Snapshot.open(folder, fingerprint=FINGERPRINT, verify=True)
    Snapshot.open(folder, fingerprint=FINGERPRINT)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_smaller_types_are_near_and_give_float32_rows(cache, tmp_path, dtype):
    texts = ["d", "a", "d"]
    snapshot = cache.snapshot(texts, tmp_path / dtype, dtype=dtype)
    assert snapshot.vectors.dtype == dtype
    exact = np.array([[10, 11, 12], [1, 2, 3], [10, 11, 12]], dtype=np.float32)
    step = np.zeros((3, 1)) if dtype == "float16" else exact.max(axis=1, keepdims=True) / 127
    for chosen in (slice(None), slice(1, 3), np.array([2, 0])):
        rows = snapshot.rows(chosen)
        assert rows.dtype == np.float32
        assert (np.abs(rows - exact[chosen]) <= step[chosen] / 2 + 1e-6).all()
    assert len(Snapshot.open(tmp_path / dtype, fingerprint=FINGERPRINT, verify=True)) == 3


def test_a_snapshot_of_another_type_leaves_nothing_of_the_older_one(folder, cache):
    cache.snapshot(["a"], folder, dtype="int8")
    cache.snapshot(["a"], folder, dtype="float16")
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "vectors.f16"]


def test_rows_are_a_copy(folder):
    snapshot = Snapshot.open(folder, fingerprint=FINGERPRINT)
    snapshot.rows(slice(0, 1))[:] = 0
    assert snapshot.vectors[0].tolist() == [10, 11, 12]


def test_a_shape_that_the_data_do_not_have_raises(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shape"] = [4, 3]
    del manifest["manifest_sha256"]  # whoever writes such a manifest would write a new one
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"size of vectors\.f32 in bytes is 36, expected 48"):
        Snapshot.open(folder, fingerprint=FINGERPRINT)


def test_an_unfinished_snapshot_raises(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"no manifest\.json"):
        Snapshot.open(folder, fingerprint=FINGERPRINT)


def test_a_snapshot_is_replaced_in_place(folder, cache):
    assert cache.snapshot(["b"], folder).vectors.tolist() == [[4, 5, 6]]
