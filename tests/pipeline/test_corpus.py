import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus import (
    Corpus,
    build_corpus,
    shared_users,
    size_groups,
)
from pipeline.corpus_files import CorpusWriter
from pipeline.row_keys import person_key, user_ids, user_key, user_keys

# Few people, items and times, so that ties and people shared by domains are the rule.
events = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd"), st.integers(0, 4)),
    min_size=1,
    max_size=12,
)
A = [("u", "x", 1), ("u", "y", 5), ("v", "x", 2)]
B = [("u", "p", 3), ("w", "q", 4), ("w", "p", 4)]


def rows(corpus: Corpus, domain: str | None = None) -> dict[str, list[tuple[str, str, int]]]:
    """(domain, item, time) of each user's row in order, of one domain or all."""
    found: dict[str, list[tuple[str, str, int]]] = {}
    for user, key in enumerate(corpus.user_keys):
        for event in range(*corpus.offsets[user : user + 2]):
            name = corpus.domains[corpus.event_domains[event]].name
            item = corpus.item_ids[int(corpus.items[event])]
            if domain in (None, name):
                found.setdefault(key, []).append((name, item, int(corpus.timestamps[event])))
    return found


def test_people_shared_by_domains_are_one_row_in_time_order(corpus_of):
    corpus = corpus_of({"a": A, "b": B})
    found = rows(corpus)
    assert found["main:u"] == [("a", "x", 1), ("b", "p", 3), ("a", "y", 5)]
    assert found["main:v"] == [("a", "x", 2)]
    assert sorted(found["main:w"]) == [("b", "p", 4), ("b", "q", 4)]
    assert list(corpus.user_keys) == ["main:u", "main:v", "main:w"]
    assert list(corpus.item_ids) == ["x", "y", "p", "q"]
    assert [(d.name, d.first_item, d.n_items) for d in corpus.domains] == [("a", 0, 2), ("b", 2, 2)]
    assert corpus.domain_starts.tolist() == [0, 2, 4]
    assert corpus.event_users.tolist() == [0, 0, 0, 1, 2, 2]


def test_equal_ids_on_different_platforms_are_different_people(domain_of, merge):
    corpus = merge([domain_of("a", A), domain_of("b", B, platform="other")])
    assert list(corpus.user_keys) == ["main:u", "main:v", "other:u", "other:w"]


def test_a_domain_without_times_never_interleaves(domain_of, merge):
    bare = [("u", "p", 0), ("u", "p", 0), ("u", "q", 0)]
    corpus = merge([domain_of("a", A), domain_of("b", bare, order="sequence")])
    assert rows(corpus) == {
        "main:b:u": [("b", "p", 0), ("b", "p", 1), ("b", "q", 2)],
        "main:u": [("a", "x", 1), ("a", "y", 5)],
        "main:v": [("a", "x", 2)],
    }
    assert [domain.order for domain in corpus.domains] == ["time", "sequence"]


@pytest.mark.faults
@given(events, st.randoms())
def test_file_order_never_matters(corpus_of, found, chance):
    shuffled = chance.sample(found, len(found))
    assert corpus_of({"a": found}).fingerprint() == corpus_of({"a": shuffled}).fingerprint()


@pytest.mark.faults
@given(events, st.randoms())
def test_without_times_the_order_of_the_users_in_a_file_never_matters(
    domain_of, merge, found, chance
):
    users = chance.sample("uvw", 3)
    moved = [event for user in users for event in found if event[0] == user]
    one, other = (merge([domain_of("a", rows, order="sequence")]) for rows in (found, moved))
    assert one.fingerprint() == other.fingerprint()


@given(events, events)
def test_adding_a_domain_changes_no_order_inside_another(corpus_of, first, second):
    alone = rows(corpus_of({"a": first}))
    for names in (["a", "b"], ["b", "a"]):
        both = corpus_of({name: {"a": first, "b": second}[name] for name in names})
        assert rows(both, "a") == alone


def test_ties_are_broken_differently_for_different_people(corpus_of):
    corpus = corpus_of({"a": [(f"u{n}", item, 7) for n in range(200) for item in "xy"]})
    first = [row[0][1] for row in rows(corpus).values()]
    assert 60 < first.count("x") < 140


def test_ids_stay_as_they_are_and_keys_stay_unambiguous(domain_of, merge):
    corpus = merge([domain_of("a", [("007", "NA", 1), ("b:7", "null", 2), ("50%", "x", 3)])])
    assert list(corpus.user_keys) == ["main:007", "main:50%25", "main:b%3A7"]
    assert list(corpus.item_ids) == ["NA", "null", "x"]
    assert user_key("main", "b:7") != user_key("main", "7", "b")
    assert person_key(user_key("main", "b:7", "d")) == user_key("main", "b:7")


@given(st.lists(st.text("%:3A25ué", max_size=6)), st.none() | st.just("d"))
def test_many_keys_are_the_keys_of_each_and_tell_the_user(users, domain):
    column = pl.Series(users, dtype=pl.String)
    keys = user_keys("main", column, domain)
    assert keys.to_list() == [user_key("main", user, domain) for user in users]
    assert user_ids("main", keys, domain).to_list() == users


def test_a_corpus_comes_back_memory_mapped(corpus_of, tmp_path):
    corpus = corpus_of({"a": A, "b": B})
    corpus.save(tmp_path / "corpus")
    again = Corpus.open(tmp_path / "corpus")
    assert again.domains == corpus.domains
    assert rows(again) == rows(corpus)
    assert list(again.texts) == list(corpus.texts)
    assert isinstance(again.items, np.memmap)
    assert again.items.dtype == np.int32
    assert not again.timestamps.flags.writeable
    again.__dict__.pop("_fingerprint")
    assert again.fingerprint() == corpus.fingerprint()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"]


def test_a_corpus_is_never_written_over(corpus_of, tmp_path):
    corpus = corpus_of({"a": A})
    corpus.save(tmp_path / "corpus")
    with pytest.raises(ValueError, match="it exists; remove it first"):
        corpus.save(tmp_path / "corpus")


@pytest.mark.parametrize("name", ["items.npy", "texts.arrow"])
@pytest.mark.parametrize("harm", ["flip", "remove"])
def test_a_damaged_corpus_does_not_open(corpus_of, tmp_path, name, harm):
    corpus_of({"a": A}).save(tmp_path / "corpus")
    file = tmp_path / "corpus" / name
    if harm == "remove":
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    with pytest.raises(ValueError, match=f"is damaged: {name}"):
        Corpus.open(tmp_path / "corpus")


def test_an_absent_manifest_is_named(corpus_of, tmp_path):
    corpus_of({"a": A}).save(tmp_path / "corpus")
    (tmp_path / "corpus" / "corpus.json").unlink()
    with pytest.raises(ValueError, match=r"corpus\.json is absent"):
        Corpus.open(tmp_path / "corpus")


def test_the_fingerprint_knows_every_part(corpus_of, domain_of, merge):
    prints = {
        corpus.fingerprint()
        for corpus in (
            corpus_of({"a": A}),
            corpus_of({"b": A}),
            corpus_of({"a": [*A[:2], ("v", "x", 3)]}),
            corpus_of({"a": [*A[:2], ("v", "y", 2)]}),
            corpus_of({"a": [*A[:2], ("w", "x", 2)]}),
            merge([domain_of("a", A, platform="other")]),
        )
    }
    assert len(prints) == 6


def test_two_domains_of_one_name_or_none_are_refused(domain_of, merge):
    domain = domain_of("a", A)
    with pytest.raises(ValueError, match="two domains are called 'a'"):
        merge([domain, domain])
    with pytest.raises(ValueError, match="a corpus needs a domain"):
        merge([])


def test_large_domains_have_their_share_of_interactions(corpus_of):
    """4 + 2 + 3 interactions in 3 domains: large from 3 on."""
    sizes = {"a": 4, "b": 2, "c": 3}
    corpus = corpus_of({name: [(f"u{n}", "x", n) for n in range(k)] for name, k in sizes.items()})
    assert size_groups(corpus) == {"a": "large", "b": "small", "c": "large"}
    assert size_groups(corpus, ["b"]) == {"a": "small", "b": "large", "c": "small"}
    assert size_groups(corpus, []) == dict.fromkeys("abc", "small")
    with pytest.raises(ValueError, match="no domain 'd': it has a, b, c"):
        size_groups(corpus, ["d"])


def test_people_shared_by_pairs_of_domains(corpus_of):
    c = [("u", "s", 1), ("u", "t", 1), ("w", "s", 1)]
    assert shared_users(corpus_of({"a": A, "b": B, "c": c})) == {"a & b": 1, "a & c": 1, "b & c": 2}


@pytest.mark.data
def test_beauty_and_toys_share_their_people(data_folder, tmp_path):
    from pipeline.domains import DomainConfig, build_domain

    domains = []
    for name in ("beauty", "toys"):
        source = {"format": "sequences", "path": f"amazon2014/{name}"}
        config = DomainConfig.model_validate({"name": name, "source": source})
        domains.append(build_domain(config, data_folder, tmp_path, tmp_path))
    random.Random(0).shuffle(domains)
    assert list(shared_users(build_corpus(domains, tmp_path / "corpus")).values()) == [2_054]


def test_what_is_not_finished_is_not_there(tmp_path):
    with (
        pytest.raises(RuntimeError, match="broke off"),
        CorpusWriter(tmp_path / "corpus") as writer,
    ):
        writer.add_items([pl.Series(["a"])], [pl.Series([""])])
        raise RuntimeError("broke off")
    assert list(tmp_path.iterdir()) == []
