"""An item that training has never seen is what its text says, as in training."""

import numpy as np
import pytest
import torch

from pipeline import Recommender
from pipeline.export import export
from pipeline.recommender import UserState


@pytest.fixture
def own(bundle):
    """The bundle in use, of this test alone."""
    return Recommender.load(bundle)


def test_an_encoded_text_is_the_snapshots_vector(own, run, data_of):
    data = data_of(run, "hydra_joint")
    text = own.catalogue("books").texts(3)
    vector = own.encode_text(text)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, data.item_texts()[3].numpy(), atol=1e-5)


def test_a_new_item_is_there_at_once(own):
    garden = own.catalogue("garden")
    ids = garden.ids(range(3))
    before = own.state_of("garden", ids)
    row = own.add_item("garden", "new", garden.texts(3))
    assert row == 60 == garden.row("new")
    assert garden.id(row) == "new"
    assert garden.search(garden.texts(3), 60)[-1] == row
    assert "new" in own.recommend(before, 61).item_ids
    after = own.update(before, "new")
    assert "new" not in own.recommend(after, 61).item_ids
    assert own.state_of("garden", [*ids, "new"]).seen.rows.tolist() == [0, 1, 2, 60]
    with pytest.raises(ValueError, match="garden has it already, in row 60"):
        own.add_item("garden", "new", "another")
    with pytest.raises(ValueError, match="give both"):
        own.add_item("garden", "other", " ")
    # It lives in memory: a store's bytes know nothing of it.
    assert UserState.from_bytes(after.to_bytes(), Recommender.load(own.bundle.folder)).n_users == 1


def test_its_vectors_are_those_of_an_item_without_an_id(own, run, data_of):
    """As the table itself has it: an item of the same text that no history has."""
    from pipeline.run_outputs import RunOutputs
    from pipeline.user_models import WEIGHTS
    from user_model.checkpoint import load_weights

    data = data_of(run, "hydra_joint")
    model = data.build()
    load_weights(RunOutputs.read(run.folder).output("train.hydra_joint") / WEIGHTS, model)
    model.eval().items.seen[:] = False
    assert model.items.channel.neighbours.abs().max() > 0.0
    model.items.channel.neighbours.zero_()
    for name, start in (("books", 0), ("garden", 60)):
        catalogue = own.catalogue(name)
        row = own.add_item(name, "new", catalogue.texts(5))
        with torch.no_grad():
            expected = model.item_vectors(torch.tensor([start + 5]))
        found = catalogue.vectors(np.array([row]))
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)  # the text is encoded anew


def test_the_same_text_stands_beside_its_like(text_run, tmp_path):
    rec = Recommender.load(export(text_run.folder, output=tmp_path / "bundle"))
    assert rec.window is None
    garden = rec.catalogue("garden")
    row = rec.add_item("garden", "new", garden.texts(11))
    for history in ([3, 7], [20, 1, 40], [59]):
        found = rec.recommend(garden.ids(history), 61, domain="garden").item_ids
        beside = found.index("new"), found.index(garden.id(11))
        between = found[min(beside) + 1 : max(beside)]
        # Others of the very same score alone may stand between them.
        assert all(garden.texts(garden.row(one)) == garden.texts(row) for one in between)


def test_ids_alone_take_no_new_items(run, tmp_path):
    rec = Recommender.load(export(run.folder, "hydra_ids", tmp_path / "bundle"))
    with pytest.raises(ValueError, match="hydra_ids knows ids alone"):
        rec.add_item("books", "new", "a text")
    with pytest.raises(ValueError, match="names no text encoder"):
        rec.encode_text("a text")
