import numpy as np
import pytest

from pipeline.poor_texts import PoorTextConfig, make_poor
from pipeline.string_table import StringTable

IDS = [f"i{number:03}" for number in range(300)]
TEXTS = [f"tin kettle {number} two litres black handle sold by weight" for number in range(300)]


@pytest.fixture
def made_poor(tmp_path):
    """made_poor(how, share): the texts afterwards, and how many were said to differ."""

    def run(how, share, texts=TEXTS, domain="shop"):
        StringTable.of(IDS).save(tmp_path / "ids")
        StringTable.of(texts).save(tmp_path / "texts")
        config = PoorTextConfig(how=how, share=share)
        changed = make_poor(tmp_path / "texts", tmp_path / "ids", domain, config)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ids", "texts"]
        return list(StringTable.open(tmp_path / "texts")), changed

    return run


@pytest.mark.parametrize("how", ["cut", "drop", "shuffle", "empty"])
def test_a_share_of_0_changes_nothing(made_poor, how):
    assert made_poor(how, 0.0) == (TEXTS, 0)


@pytest.mark.parametrize("how", ["cut", "drop", "empty"])
def test_a_share_of_1_leaves_nothing(made_poor, how):
    assert made_poor(how, 1.0) == ([""] * 300, 300)


def test_cutting_keeps_the_first_words(made_poor):
    texts, changed = made_poor("cut", 0.4)
    assert texts[7] == "tin kettle 7 two litres black"
    assert changed == 300


def test_dropped_words_are_about_the_share_and_the_order_stays(made_poor):
    texts, _ = made_poor("drop", 0.3)
    kept = sum(len(text.split()) for text in texts)
    assert kept / (300 * 10) == pytest.approx(0.7, abs=0.03)
    for before, after in zip(TEXTS, texts, strict=True):
        words = iter(before.split())
        assert all(word in words for word in after.split()), "a subsequence"


@pytest.mark.parametrize("how", ["drop", "empty"])
def test_what_is_gone_at_a_share_is_gone_at_every_larger_one(made_poor, how):
    few, many = made_poor(how, 0.2)[0], made_poor(how, 0.6)[0]
    for less, more in zip(few, many, strict=True):
        assert set(more.split()) <= set(less.split())


def test_shuffled_items_have_each_others_texts(made_poor):
    texts, changed = made_poor("shuffle", 0.5)
    assert sorted(texts) == sorted(TEXTS)
    assert changed == sum(a != b for a, b in zip(texts, TEXTS, strict=True))
    assert changed == pytest.approx(150, abs=30)
    whole, all_changed = made_poor("shuffle", 1.0)
    assert all_changed == 300
    assert sorted(whole) == sorted(TEXTS)


def test_empty_texts_are_about_the_share(made_poor):
    texts, changed = made_poor("empty", 0.25)
    assert texts.count("") == changed == pytest.approx(75, abs=20)


def test_domains_draw_apart_and_twice_is_the_same(made_poor):
    first, other = made_poor("empty", 0.5)[0], made_poor("empty", 0.5, domain="other")[0]
    assert first == made_poor("empty", 0.5)[0]
    assert first != other


def test_no_texts_stay_no_texts(made_poor):
    for how in ("cut", "drop", "shuffle", "empty"):
        assert made_poor(how, 0.5, texts=[""] * 300) == ([""] * 300, 0)


def test_more_items_than_a_batch_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.poor_texts._BATCH", 7)
    for name, strings in (("ids", IDS), ("texts", TEXTS)):
        StringTable.of(strings).save(tmp_path / name)
    make_poor(tmp_path / "texts", tmp_path / "ids", "shop", PoorTextConfig(how="cut", share=0.7))
    expected = [" ".join(text.split()[:3]) for text in TEXTS]
    assert list(StringTable.open(tmp_path / "texts")) == expected
    make_poor(tmp_path / "texts", tmp_path / "ids", "shop", PoorTextConfig(how="shuffle", share=1))
    found = list(StringTable.open(tmp_path / "texts"))
    assert sorted(found) == sorted(expected)
    assert np.mean([a == b for a, b in zip(found, expected, strict=True)]) < 0.1
