import numpy as np
import pytest

from pipeline.buckets import buckets
from pipeline.corpus import Corpus, DomainInfo
from pipeline.splits import SplitConfig, assign_roles
from pipeline.string_table import StringTable

DAY = 86_400


def corpus_of(people, order="time") -> Corpus:
    """Items a..j of shop A (positions 0-9), k..n of shop B (10-13); people: [(item, time), ..]."""
    letters = "abcdefghijklmn"
    events = [[(letters.index(item), time) for item, time in person] for person in people]
    flat = [event for person in events for event in person]
    return Corpus(
        domains=(
            DomainInfo("A", 0, 10, order, "main", "made up"),
            DomainInfo("B", 10, 4, order, "main", "made up"),
        ),
        item_ids=StringTable.of(list(letters)),
        texts=StringTable.of([""] * 14),
        offsets=np.cumsum([0, *map(len, events)]).astype(np.int64),
        items=np.array([item for item, _ in flat], np.int32),
        timestamps=np.array([time for _, time in flat], np.int64),
        user_keys=StringTable.of([f"main:{n}" for n in range(len(people))]),
    )


def days(items: str) -> list[tuple[str, int]]:
    return [(item, place * DAY) for place, item in enumerate(items)]


def of(corpus: Corpus, domain: str = "A") -> dict[str, dict[str, list[int]]]:
    """The rows of each bucket's users."""
    found = buckets(corpus, assign_roles(corpus, SplitConfig()), domain)
    return {
        group: {name: np.flatnonzero(rows).tolist() for name, rows in members.items()}
        for group, members in found.items()
    }


def test_histories_count_all_events_of_the_domain_before_the_target():
    long = "abcde" * 11  # 54 before the target
    found = of(corpus_of([days("abc"), days("abcdef"), days("abcdefg"), days(long)]))
    assert found["history"] == {"1-5": [0, 1], "6-20": [2], "21-50": [], "51+": [3]}


def test_another_domains_events_do_not_lengthen_a_history_but_make_a_shared_person():
    mixed = [(item, place * DAY) for place, item in enumerate("kkkkkkabc")]
    found = of(corpus_of([mixed, days("abc")]))
    assert found["history"]["1-5"] == [0, 1]
    assert found["person"] == {"shared": [0], "one domain": [1]}


def test_held_out_events_elsewhere_make_nobody_shared():
    # kk: too few to be held out, so they train; the second person's only k is a held-out one.
    both = [*days("abc"), ("k", 9 * DAY), ("k", 10 * DAY)]
    found = of(corpus_of([both, days("abc")]))
    assert found["person"]["shared"] == [0]
    held_out = days("abckkk")
    roles = assign_roles(corpus_of([held_out]), SplitConfig())
    assert roles.tolist() == [0, 1, 2, 0, 1, 2]


def test_targets_are_cold_tail_or_head_by_training_events():
    # Training events: a 4, b 3, so a alone holds half; c and d never train.
    people = [days("abad"), days("abca"), days("abcb"), days("aac")]
    corpus = corpus_of(people)
    roles = assign_roles(corpus, SplitConfig())
    trained = np.bincount(corpus.items[roles == 0], minlength=4)[:4].tolist()
    assert trained == [4, 3, 0, 0]
    found = of(corpus)
    assert found["item"] == {"cold": [0, 3], "tail": [2], "head": [1]}
    # Their targets are d, a, b and c.
    none = {name: [] for name in ["6-10", "11-20", "21-50", "51+"]}
    assert found["taken"] == {"0": [0, 3], "1-2": [], "3-5": [1, 2], **none}


def test_ties_are_targets_of_the_time_of_the_event_before_them():
    tied = [("a", 0), ("b", DAY), ("c", DAY)]
    corpus = corpus_of([tied, days("abc")])
    found = of(corpus)
    # Which of b and c comes first is the corpus's order; either way the target is tied.
    assert found["tie"] == {"tied": [0], "untied": [1]}


def test_a_domain_without_times_has_no_ties():
    assert "tie" not in of(corpus_of([days("abc")], order="sequence"))


@pytest.mark.parametrize("group", ["history", "item", "taken", "tie", "person"])
def test_each_user_stands_in_one_bucket_of_each_group(group):
    draws = np.random.default_rng(0)
    people = [
        sorted(
            (
                (draws.choice(list("abcdefghijklmn")), int(draws.integers(9)) * DAY)
                for _ in range(n)
            ),
            key=lambda event: event[1],
        )
        for n in draws.integers(4, 90, 60)
    ]
    corpus = corpus_of(people)
    found = buckets(corpus, assign_roles(corpus, SplitConfig()), "A")
    assert np.array_equal(
        np.sum(list(found[group].values()), axis=0), np.ones(len(found["item"]["cold"]))
    )
