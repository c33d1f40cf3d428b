"""What the parameters of the marketplace mean: overlaps, lengths, texts, cold items, sizes."""

import hashlib
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from pipeline.sources.oracle import BOUGHT_BEFORE
from pipeline.sources.people import known_buyers, lengths
from pipeline.sources.purchases import purchases_of
from pipeline.sources.shop import FIRST_DAY, LAST_DAY, make_shop
from pipeline.sources.simulated import (
    GENERATOR_VERSION,
    SimulatedConfig,
    has_oracle,
    read_simulated,
    simulated_oracle,
)
from pipeline.sources.tables import WholeTables
from pipeline.sources.values import shared_values, value_words
from pipeline.sources.vocabulary import THEMES

SMALL = {"population": 600, "share": 0.5, "items": 80, "mean_history": 8}


def shop_config(catalogue: str = "books", **fields) -> SimulatedConfig:
    return SimulatedConfig(catalogue=catalogue, **SMALL | fields)


def read(catalogue: str = "books", **fields) -> WholeTables:
    return read_simulated(shop_config(catalogue, **fields)).whole()


def people_of(tables: WholeTables) -> set[str]:
    return set(tables.interactions["user_id"])


@pytest.mark.parametrize("part_rows", [7, 500, 100_000])
def test_the_size_of_parts_changes_no_row(part_rows):
    config = shop_config(user_overlap=0.5, empty_titles=0.2, dropped_words=0.2, cold_items=0.2)
    expected, found = read_simulated(config).whole(), read_simulated(config, part_rows)
    parts = list(found.interactions)
    assert max(part.rows.height for part in parts) <= part_rows
    assert pl.concat([part.rows for part in parts]).equals(expected.interactions)
    assert pl.concat([part.rows for part in found.items]).equals(expected.items)
    assert sum(part.rows_read for part in parts) == expected.interactions.height


def test_a_persons_purchases_do_not_depend_on_how_many_people_there_are():
    few, many = read(population=200).interactions, read(population=2000).interactions
    assert many.filter(pl.col("user_id") < "u000200").equals(few)


@pytest.mark.parametrize(("overlap", "low", "high"), [(0, 0, 0), (0.4, 0.3, 0.5), (1, 1, 1)])
def test_user_overlap_is_the_share_of_people_known_elsewhere(overlap, low, high):
    here, there = (
        people_of(read("books", share=1, user_overlap=overlap)),
        people_of(read("garden", share=1)),
    )
    assert low <= len(here & there) / len(here) <= high
    assert len(here) == 600


def test_people_of_one_shop_alone_are_nobody_in_another():
    books, garden = (read(name, share=1, user_overlap=0) for name in ("books", "garden"))
    assert not people_of(books) & people_of(garden)
    people = np.arange(600)
    a, b = (make_shop(shop_config(name, user_overlap=0)) for name in ("books", "garden"))
    alike = (a.taste(people)[:, :25] > 0) == (b.taste(people)[:, :25] > 0)
    # Likes of a quarter of the values agree by chance in 0.25 ** 2 + 0.75 ** 2 = 0.625 of all.
    assert abs(alike.mean() - 0.625) < 0.02


def test_without_taste_overlap_nothing_of_the_marketplace_is_left():
    books, garden = (make_shop(shop_config(n, taste_overlap=0)) for n in ("books", "garden"))
    people = np.arange(600)
    assert not shared_values(books.config).any()
    alike = (books.taste(people)[:, :25] > 0) == (garden.taste(people)[:, :25] > 0)
    assert abs(alike.mean() - 0.625) < 0.02
    followed = (books.next[:25, :25] > 0) & (garden.next[:25, :25] > 0)
    assert followed.sum() < 0.5 * (books.next[:25, :25] > 0).sum()
    words = [{word for value in value_words(shop.config)[:25] for word in value}
             for shop in (books, garden)]  # fmt: skip
    # Each name draws 25 of 2,304 pairs of words: 0.3 pairs, two words each, are common by chance.
    assert len(words[0] & words[1]) <= 4
    assert not words[0] & {word for theme in THEMES for word in theme}


def test_taste_overlap_between_is_a_mixture_of_values():
    shop = make_shop(shop_config(taste_overlap=0.5))
    whole, none = (make_shop(shop_config(taste_overlap=overlap)) for overlap in (1, 0))
    shared = shared_values(shop.config)
    assert 5 <= shared.sum() <= 20
    assert np.array_equal(shop.next[shared], whole.next[shared])
    assert np.array_equal(shop.next[~shared], none.next[~shared])
    liked = (shop.taste(np.arange(600))[:, :12] > 0).sum(axis=1)
    assert (liked == 3).all(), "a quarter of the twelve themes, wherever they are from"


def test_any_catalogue_has_words_of_its_own():
    boats, kites = read("boats").items, read("kites").items
    assert boats["text"].n_unique() == kites["text"].n_unique() == 80
    assert boats["item_id"][3] == "boats-00003"
    kinds = [value_words(shop_config(name))[25:] for name in ("boats", "kites")]
    assert not set(kinds[0]) & set(kinds[1])
    assert value_words(shop_config("boats", seed=5))[25:] == kinds[0], "of the name, not the seed"
    with pytest.raises(ValidationError, match="catalogue 'Sail Boats' cannot be used"):
        shop_config("Sail Boats")


@pytest.mark.parametrize("tail", [None, 1.3, 2.5])
def test_lengths_have_the_mean_that_was_asked_for(tail):
    config = shop_config(items=100_000, mean_history=30, length_tail=tail, population=400_000)
    drawn = lengths(config, known_buyers(config, np.arange(400_000)))
    error = drawn.std() / np.sqrt(len(drawn))
    # floor() of a continuous law and its cut at the longest are part of the law.
    assert abs(drawn.mean() - 30) < 4 * error
    assert drawn.min() == 5
    assert drawn.max() <= 10_000


def test_a_heavy_tail_reaches_ten_thousand_purchases():
    config = shop_config(items=30_000, mean_history=100, length_tail=1.1, zipf=1.0)
    people = known_buyers(config, np.arange(100_000))
    counts = lengths(config, people)
    assert counts.max() == 10_000
    longest = known_buyers(config, people.person[counts == 10_000][:1])
    bought = purchases_of(make_shop(config), longest)
    assert len(np.unique(bought.item)) == len(bought.item) == 10_000
    assert (np.diff(bought.time) > 0).all()
    assert FIRST_DAY <= bought.time[0] <= bought.time[-1] <= LAST_DAY


@pytest.mark.parametrize("zipf", [0.7, 3.0])
def test_choices_follow_the_oracles_law_when_most_is_bought_and_some_is_cold(zipf):
    """At zipf 3 the popular items are soon bought, and the draw that looks at all items is used."""
    config = shop_config(items=30, mean_history=11, zipf=zipf, cold_items=0.2, cold_from=0.5,
                         population=1500, taste_overlap=0.5)  # fmt: skip
    oracle = simulated_oracle(config)
    events = np.arange(len(oracle.purchases.item))
    log_p = oracle.log_probabilities(events)
    p = np.where(log_p > BOUGHT_BEFORE, np.exp(log_p), 0.0)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    # Each item is bought as often as the law expects it, within the law's own error.
    counts = np.bincount(oracle.purchases.item, minlength=30)
    score = (counts - p.sum(axis=0)) / np.sqrt((p * (1 - p)).sum(axis=0))
    assert np.abs(score).max() < 4.5
    surprise, entropy = -log_p[events, oracle.purchases.item], -(p * log_p).sum(axis=1)
    variance = (p * log_p**2).sum(axis=1) - entropy**2
    assert abs((surprise - entropy).sum()) < 4 * np.sqrt(variance.sum())


def test_cold_items_come_late_and_are_bought_then():
    config = shop_config(cold_items=0.25, cold_from=0.7)
    shop, bought = make_shop(config), simulated_oracle(config).purchases
    is_cold = shop.cold[bought.item]
    assert shop.cold.sum() == 20
    assert is_cold.sum() > 50
    assert bought.time[is_cold].min() >= FIRST_DAY + 0.7 * (LAST_DAY - FIRST_DAY)


def test_text_quality_is_what_was_asked_for():
    plain = read(items=1000).items["text"]
    words = plain.str.split(" ").list
    dropped = read(items=1000, dropped_words=0.3).items["text"]
    kept = dropped.str.split(" ").list.len().sum() / words.len().sum()
    assert abs(kept - 0.7) < 0.02
    shuffled = read(items=1000, shuffled_titles=1.0).items["text"]
    assert shuffled.str.split(" ").list.sort().equals(words.sort())
    assert (shuffled != plain).mean() > 0.99
    empty = read(items=1000, empty_titles=0.2).items["text"]
    assert abs((empty == "").mean() - 0.2) < 0.05
    assert (empty.filter(empty != "") == plain.filter(empty != "")).all()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "c4736ed6d223e982"),
        (
            {"zipf": 2.5, "population": 50, "items": 40, "mean_history": 18, "share": 1},
            "ebcc6724103f8e6d",
        ),
        (
            {"cold_items": 0.2, "length_tail": 1.3, "empty_titles": 0.1, "shuffled_titles": 0.3},
            "6760dc289327abdb",
        ),
        (
            {"items": 30_000, "population": 1_000, "share": 1.0, "user_overlap": 0.3},
            "7fd38df21445a89c",
        ),
    ],
)
def test_a_shop_is_what_it_was(fields, expected):
    """As long as GENERATOR_VERSION is: published figures are of these shops, to the last byte."""
    assert GENERATOR_VERSION == 2
    tables = read_simulated(SimulatedConfig(catalogue="books", **fields)).whole()
    digest = hashlib.sha256()
    for table in (tables.interactions, tables.items):
        digest.update(table.write_csv().encode())
    assert digest.hexdigest()[:16] == expected


def test_only_shops_of_a_bearable_size_have_an_oracle():
    large = shop_config(population=2_000_000, items=100_000)
    assert has_oracle(shop_config())
    assert not has_oracle(large)
    with pytest.raises(ValueError, match=r"simulated books .* is too large for an oracle"):
        simulated_oracle(large)


def test_histories_longer_than_the_shop_are_refused():
    with pytest.raises(ValidationError, match=r"mean_history 36.0 is more than 32, .* 64 items"):
        shop_config(cold_items=0.2, mean_history=36)


_LARGE = r"""
import re, time
from pathlib import Path
from pipeline.sources.simulated import SimulatedConfig, read_simulated
fields = dict(catalogue="boats", items=100_000, share=0.5, mean_history=10, length_tail=1.5)

def peak():
    # Not ru_maxrss: that starts at what the process had that started this one.
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])

read_simulated(SimulatedConfig(population=100, **fields)).whole()  # compiled before it is timed
level = peak()  # of what is imported
started = time.process_time()
tables = read_simulated(SimulatedConfig(population={population}, **fields))
rows = sum(part.rows.height for part in tables.interactions)
print(rows, time.process_time() - started, peak() - level)
"""


@pytest.mark.slow
@pytest.mark.timed
def test_ten_million_interactions_are_made_in_bounded_memory():
    figures = []
    for population in (200_000, 2_000_000):
        code = _LARGE.format(population=population)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                              check=True)  # fmt: skip
        figures.append([float(word) for word in done.stdout.split()])
    (rows, seconds, peak), (more_rows, more_seconds, more_peak) = figures
    assert rows > 900_000
    assert more_rows > 9_000_000
    assert seconds / rows < 30 / 1e6
    assert more_seconds / more_rows < 30 / 1e6
    assert more_peak < 100e6
    assert more_peak < peak + 50e6
