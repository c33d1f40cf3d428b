"""The approximate index finds most of the exact top k, with exact scores."""

import numpy as np
import pytest

from pipeline import Recommender
from pipeline.recommender import item_index
from pipeline.recommender.item_index import ItemIndex


def test_an_index_finds_most_of_the_best(large_bundle, capsys):
    assert item_index.main([str(large_bundle), "--domain", "books", "--users", "30"]) == 0
    told = capsys.readouterr().out
    assert "recall@100 0.9" in told or "recall@100 1.0" in told
    rec = Recommender.load(large_bundle)
    folder = large_bundle.with_name(f"{large_bundle.name}.index") / "books"
    index = ItemIndex.open(folder, rec, "books", probes=100)
    books = rec.catalogue("books")
    histories = [books.ids(rows) for rows in np.random.default_rng(1).integers(0, 300, (5, 4))]
    exact = rec.recommend_many(histories, 10, domain="books")
    for a, b in zip(
        exact, rec.recommend_many(histories, 10, domain="books", index=index), strict=True
    ):
        both = [item for item in b.item_ids if item in a.item_ids]
        assert len(both) >= 9
        scores = dict(zip(a.item_ids, a.scores, strict=True))
        for item, score in zip(b.item_ids, b.scores, strict=True):
            assert score == pytest.approx(scores.get(item, score), abs=1e-6)
        assert (np.diff(b.scores) <= 0).all()
    row = rec.add_item("books", "new", books.texts(5))
    found = rec.recommend_many([books.ids([5])], 600, domain="books", index=index)[0]
    assert books.id(row) in found.item_ids


def test_an_index_of_another_bundle_or_too_few_items_is_refused(
    large_bundle, bundle, shared, tmp_path
):
    ItemIndex.build(tmp_path / "index", Recommender.load(large_bundle).catalogue("books"), "other")
    with pytest.raises(ValueError, match="got one of bundle 'other'"):
        ItemIndex.open(tmp_path / "index", shared, "books")
    with pytest.raises(ValueError, match="got 60 items, expected 256 or more"):
        ItemIndex.build(tmp_path / "few", shared.catalogue("books"), shared.version)
