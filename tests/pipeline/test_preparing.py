"""Preparing out of core against its specification, reference_corpus.py."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus import Corpus, build_corpus
from pipeline.domains import DomainConfig, clean_domain
from pipeline.sources.registry import read_source

# Separators of keys, escapes of separators, letters of several bytes, and ids that look null.
IDS = ["u", "v", ":", "%", "%3A", "u:v", "é", "日本", "007", "null", "NA", "a-rather-long-user-id"]
events = st.lists(
    st.tuples(st.sampled_from(IDS), st.sampled_from([*"abcdef", "b:c"]), st.integers(0, 4)),
    min_size=1,
    max_size=40,
)
texts = st.lists(
    st.tuples(
        st.sampled_from([*"abcdefxyz"]),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
        | st.sampled_from(["<b>bold</b>", "Tom &amp; Jerry", "one two three four five"]),
    ),
    max_size=12,
)
cleanings = st.fixed_dictionaries(
    {
        "k_core": st.integers(1, 3),
        "min_history": st.integers(1, 3),
        "max_history": st.none() | st.integers(3, 12),
        "max_text_chars": st.integers(1, 12),
    }
)


@st.composite
def domains(draw):
    return {
        "events": draw(events),
        "texts": draw(texts),
        "order": draw(st.sampled_from(["time", "time", "sequence"])),
        "platform": draw(st.sampled_from(["main", "main", "other"])),
        "max_users": draw(st.none() | st.integers(1, 8)),
        "cleaning": draw(cleanings),
    }


def config_of(folder, number, given):
    """A domain whose tables are files in the folder."""
    inter, items = folder / f"{number}.inter", folder / f"{number}.item"
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"{user}\t{item}\t{time}" for user, item, time in given["events"]]
    inter.write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = ["item_id:token\ttitle:token_seq"]
    lines += [f"{item}\t{text.replace(chr(0x85), '')}" for item, text in given["texts"]]
    items.write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = {
        "format": "recbole",
        "path": str(inter),
        "platform": given["platform"],
        "max_users": given["max_users"],
        "timestamp": "timestamp" if given["order"] == "time" else None,
    }
    config = {"name": f"d{number}", "source": source, "cleaning": given["cleaning"]}
    return DomainConfig.model_validate(config)


def assert_equal(corpus, expected):
    for name in ("offsets", "items", "timestamps"):
        got = getattr(corpus, name)
        assert got.dtype == expected[name].dtype
        np.testing.assert_array_equal(got, expected[name], err_msg=name)
    for name in ("user_keys", "item_ids", "texts"):
        assert list(getattr(corpus, name)) == expected[name]
    assert corpus.fingerprint() == expected["fingerprint"]
    corpus.__dict__.pop("_fingerprint")
    assert corpus.fingerprint() == expected["fingerprint"]


@pytest.mark.parametrize(("working_bytes", "most_events"), [(1 << 26, 1 << 20), (1, 1), (600, 5)])
@settings(max_examples=60)
@given(st.lists(domains(), min_size=1, max_size=3), st.integers(0, 1))
def test_preparing_in_parts_is_preparing_in_memory(
    reference, tmp_path_factory, working_bytes, most_events, given, seed
):
    """With budgets so small that there are many partitions, shards, ranges and batches."""
    folder = tmp_path_factory.mktemp("preparing")
    found, expected = [], []
    for number, one in enumerate(given):
        config = config_of(folder, number, one)
        whole = reference.reference_domain(config, folder, seed)

        def prepared(config=config):
            raw = read_source(config.source, folder)
            return clean_domain(
                config, raw, folder / "q", folder / "w", seed=seed, working_bytes=working_bytes
            )

        if whole.interactions.is_empty():
            with pytest.raises(ValueError, match="is empty after cleaning"):
                prepared()
            continue
        domain = prepared()
        assert asdict(domain.report) == reference.report_of(whole)
        assert domain.interactions.equals(whole.interactions)
        assert domain.items.equals(whole.items)
        found.append(domain)
        expected.append(whole)
    if found:
        corpus = build_corpus(found, folder / "corpus", most_events)
        assert_equal(corpus, reference.reference_corpus(expected))
        assert_equal(Corpus.open(folder / "corpus"), reference.reference_corpus(expected))


def test_many_users_in_many_files(reference, tmp_path):
    """Spilled to files, several of which make a partition, and merged in several ranges."""
    chance = np.random.default_rng(0)
    many = [
        (f"{user}", f"i{item}", int(time))
        for user, item, time in zip(
            chance.zipf(1.3, 20_000) % 3_000, chance.integers(0, 400, 20_000),
            chance.integers(0, 50, 20_000), strict=True,
        )
    ]  # fmt: skip
    given = {
        "events": many,
        "texts": [(f"i{n}", f"Title {n}") for n in range(0, 500, 2)],
        "order": "time",
        "platform": "main",
        "max_users": 2_000,
        "cleaning": {"k_core": 3, "max_history": 200},
    }
    configs = [config_of(tmp_path, number, given) for number in range(2)]
    wholes = [reference.reference_domain(config, tmp_path, 0) for config in configs]
    found = [
        clean_domain(
            config,
            read_source(config.source, tmp_path),
            tmp_path / "q",
            tmp_path / "w",
            working_bytes=40_000,
        )
        for config in configs
    ]
    assert 1 < len(found[0].shards) < 64
    assert [asdict(d.report) for d in found] == [reference.report_of(whole) for whole in wholes]
    corpus = build_corpus(found, tmp_path / "corpus", 3_000)
    assert_equal(corpus, reference.reference_corpus(wholes))
