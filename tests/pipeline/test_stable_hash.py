import numpy as np

from pipeline.stable_hash import hash_text, hash_texts, mixed


def test_hashes_never_change():
    """These values are part of the format: they decide ties and samples."""
    assert hash_text("") == 13_020_603_013_274_838_756
    assert hash_text("beauty") == 4_389_530_871_931_188_952
    assert mixed(1, 2).item() == 13_608_149_317_741_381_227


def test_many_texts_hash_like_one():
    texts = ["", "a", "007", "\u00e9"]
    assert hash_texts(texts).tolist() == [hash_text(text) for text in texts]


def test_mixing_broadcasts_and_knows_the_order():
    many = mixed(7, np.array([1, 2], dtype=np.uint64))
    assert many.tolist() == [mixed(7, 1).item(), mixed(7, 2).item()]
    assert mixed(1, 2) != mixed(2, 1)


def test_mixed_numbers_are_spread_evenly():
    share = mixed(3, np.arange(100_000, dtype=np.uint64)) / 2.0**64
    counts = np.histogram(share, bins=20, range=(0, 1))[0]
    assert np.abs(counts - 5000).max() < 5 * np.sqrt(5000)
