"""Item neighbours before and after tuning: which items, and which are near."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline import neighbours
from pipeline.corpus import Corpus
from pipeline.neighbours import ASKED, DOMAINS, NEAREST, POOL, Pool, choose_pools, compare
from pipeline.string_table import StringTable


@pytest.fixture
def with_texts(corpus_of) -> Callable[..., Corpus]:
    """with_texts({domain: texts}): a corpus whose items have these texts."""

    def build(domains: dict[str, list[str]]) -> Corpus:
        corpus = corpus_of(
            {
                name: [(f"u{k % 5}", f"{name}-{k:04}", k) for k in range(len(texts))]
                for name, texts in domains.items()
            }
        )
        texts = [text for domain in corpus.domains for text in domains[domain.name]]
        fields = {name: getattr(corpus, name) for name in Corpus.__dataclass_fields__}
        return Corpus(**fields | {"texts": StringTable.of(texts)})

    return build


def pool_of(corpus: Corpus) -> Pool:
    [pool] = choose_pools(corpus)
    return pool


def test_pools_are_few_and_bounded_and_do_not_depend_on_other_domains(with_texts):
    texts = [f"kettle {k}" for k in range(3 * POOL)]
    names = ("books", "games", "toys", "garden")
    corpus = with_texts({name: texts for name in names})
    pools = choose_pools(corpus)
    assert len(pools) == DOMAINS
    for pool in pools:
        assert len(set(pool.items.tolist())) == POOL
        alone = pool_of(with_texts({pool.domain.name: texts}))
        assert (alone.items == pool.items - pool.domain.first_item).all()


def test_items_without_a_text_of_their_own_are_passed_over(with_texts):
    corpus = with_texts({"books": ["same"] * 5 + [""] * 5 + ["a", "b"], "toys": [""] * 4})
    pool = pool_of(corpus)
    assert sorted(corpus.texts[int(place)] for place in pool.items) == ["a", "b", "same"]


def test_neighbours_are_the_nearest_by_cosine(with_texts):
    corpus = with_texts({"books": [f"kettle {k}" for k in range(12)]})
    pool = pool_of(corpus)
    angles = np.linspace(0, np.pi, len(pool.items))  # the first item's neighbours follow it
    before = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    after = np.concatenate([before[:1], before[1:][::-1]])
    first, *others = compare(corpus, pool, before, after)
    ids = [corpus.item_ids[int(place)] for place in pool.items]
    assert first["item"] == ids[0]
    assert [near["item"] for near in first["before"]] == ids[1 : 1 + NEAREST]
    assert [near["item"] for near in first["after"]] == ids[: -1 - NEAREST : -1]
    assert first["before"][0]["cosine"] == pytest.approx(np.cos(angles[1]), abs=1e-4)
    assert (first["among"], first["of"]) == (11, 12)
    assert len(others) == ASKED - 1


def test_an_item_is_never_its_own_neighbour(with_texts):
    corpus = with_texts({"books": ["a", "b", "c"]})
    same = np.tile(np.float32([1.0, 0.0]), (3, 1))
    for shown in compare(corpus, pool_of(corpus), same, same):
        assert shown["item"] not in {near["item"] for near in shown["before"]}
        assert len(shown["before"]) == 2


@pytest.mark.parametrize("kept", [True, False], ids=["vectors_frozen", "encoded here"])
def test_the_untuned_vectors_are_the_encoders_whether_kept_or_not(
    with_texts, tmp_path, monkeypatch, kept
):
    from item_llm import EncoderConfig, ItemEncoder
    from item_llm.cache import EmbeddingCache
    from pipeline.snapshots import write_encoder
    from pipeline.whole_files import read_json

    corpus = with_texts(
        {"books": [f"{word} kettle" for word in ["tin", "iron", "glass", "wood", "clay"]]}
    )
    corpus.save(tmp_path / "corpus")
    encoder = ItemEncoder.load(EncoderConfig(base="minilm"))
    vectors = encoder.encode(list(corpus.texts))
    cache = EmbeddingCache.open(tmp_path / "cache", encoder.fingerprint, encoder.dim)
    cache.commit([(list(corpus.texts), vectors)])
    cache.snapshot(corpus.texts, write_encoder(tmp_path / "vectors", encoder.fingerprint, {}))
    if kept:
        monkeypatch.setattr(neighbours, "_encoded", None)  # it must not be asked
    neighbours.write_neighbours(
        tmp_path,
        corpus=tmp_path / "corpus",
        tuned=tmp_path / "vectors",
        untuned=tmp_path / "vectors" if kept else None,
        encoder=EncoderConfig(base="minilm"),
    )
    items = read_json(tmp_path / "neighbours.json")["items"]
    assert len(items) == ASKED
    for shown in items:
        assert [near["item"] for near in shown["before"]] == [n["item"] for n in shown["after"]]
        cosines = [near["cosine"] for near in shown["before"]]
        assert cosines == sorted(cosines, reverse=True)
        assert 0 < cosines[-1] < 1
