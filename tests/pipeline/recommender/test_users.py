"""States as bytes: the same state again, or one clear sentence."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Recommender
from pipeline.export import export
from pipeline.recommender import UserState
from pipeline.recommender.users import SEEN_ITEMS, SeenItems


@pytest.fixture(scope="module")
def state(shared):
    ids = shared.catalogue("books").ids(np.random.default_rng(0).integers(0, 60, 30))
    return shared.state_of("books", ids)


def test_bytes_give_the_same_state(state, shared):
    again = UserState.from_bytes(state.to_bytes(), shared)
    assert (again.domain, again.schema) == (state.domain, state.schema)
    for name, tensor in state.model.to_dict().items():
        assert torch.equal(again.model.to_dict()[name], tensor)
    assert np.array_equal(again.seen.rows, state.seen.rows)
    item = shared.catalogue("books").id(4)
    assert shared.update(again, item).events.tolist() == [31]


def test_float16_is_half_as_large_and_close(state, shared):
    whole, half = len(state.to_bytes()), len(state.to_bytes("float16"))
    fixed = len(state.seen.rows) * 4 + 1500  # seen items and the header
    assert half < 0.5 * (whole - fixed) + fixed
    again = UserState.from_bytes(state.to_bytes("float16"), shared)
    for name, tensor in state.model.to_dict().items():
        torch.testing.assert_close(again.model.to_dict()[name], tensor, rtol=1e-3, atol=2e-3)
    exact, found = (shared.recommend(one, 60).scores for one in (state, again))
    np.testing.assert_allclose(found, exact, atol=5e-3)


def test_a_state_takes_less_than_32_kb(state):
    assert state.model.bytes_per_user < 32_000


def test_states_of_another_model_are_refused(state, run, tmp_path):
    other = Recommender.load(export(run.folder, "hydra_single", tmp_path / "bundle"))
    with pytest.raises(ValueError, match="other weights or other items"):
        UserState.from_bytes(state.to_bytes(), other)
    with pytest.raises(ValueError, match="make the state again"):
        other.recommend(state)


def test_a_state_outlives_another_run_card(state, bundle, tmp_path):
    import json
    import shutil

    from item_llm.folders import MANIFEST, write_manifest

    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    (copy / "run.json").write_text("{}")
    (copy / MANIFEST).unlink()
    write_manifest(copy, "bundle", {"format": 1})
    changed = Recommender.load(copy)
    assert changed.version != Recommender.load(bundle).version
    assert UserState.from_bytes(state.to_bytes(), changed).events.tolist() == [30]
    assert json.loads((copy / MANIFEST).read_text())["kind"] == "bundle"


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_bytes_are_told(data, state, shared):
    content = bytearray(state.to_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        header = 8 + int.from_bytes(content[:8], "little")
        content[data.draw(st.integers(0, header - 1))] ^= data.draw(st.integers(1, 255))
    try:
        UserState.from_bytes(bytes(content), shared)
    except ValueError as error:
        assert "user state" in str(error) or "domain: got" in str(error)  # noqa: PT017


def test_seen_items_are_the_latest():
    seen = SeenItems.of([np.arange(SEEN_ITEMS + 5), np.arange(3)])
    assert np.diff(seen.offsets).tolist() == [SEEN_ITEMS, 3]
    assert seen.user(0)[0] == 5
    after = seen.after(np.array([7, 9]))
    assert np.diff(after.offsets).tolist() == [SEEN_ITEMS, 4]
    assert after.user(0)[[0, -1]].tolist() == [6, 7]
    assert after.user(1).tolist() == [0, 1, 2, 9]
