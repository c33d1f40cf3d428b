"""Recommendations of a bundle are those of evaluation; states go on at any split."""

import threading

import numpy as np
import pytest
import torch

from pipeline import Recommender
from pipeline.export import export
from pipeline.recommender import UserState
from pipeline.run_outputs import RunOutputs
from pipeline.user_models import WEIGHTS
from user_model.checkpoint import load_weights


def cases_of(data, name):
    info = data.corpus.domain(name)
    return info, data.cases(info, "test")


def evaluation_scores(run, data, stage, name):
    """Scores [n, V] of the test cases as rank_with_user_model has them, and the cases."""
    model = data.build()
    load_weights(RunOutputs.read(run.folder).output(stage) / WEIGHTS, model)
    info, cases = cases_of(data, name)
    scorer = data.scorer(model, info, cases)
    return scorer(cases, slice(0, len(cases.targets))).numpy(), cases


def histories_of(data, cases):
    ids = data.corpus.item_ids
    return [
        [ids[int(place)] for place in cases.history[first:end]]
        for first, end in zip(cases.offsets[:-1], cases.offsets[1:], strict=True)
    ]


@pytest.mark.parametrize(
    ("model", "joint"), [("hydra_joint", True), ("hydra_single", False), ("hydra_ids", False)]
)
def test_scores_are_those_of_evaluation(model, joint, run, data_of, tmp_path):
    rec = Recommender.load(export(run.folder, model, tmp_path / "bundle"))
    assert rec.domains == ("books", "garden")
    users = 0
    for name in rec.domains:
        data = data_of(run, model, None if joint else name)
        stage = f"train.{model}" if joint else f"train.{model}.{name}"
        expected, cases = evaluation_scores(run, data, stage, name)
        given = histories_of(data, cases)
        rows = rec.catalogue(name)
        every = rec.recommend_many(given, len(rows), domain=name, exclude_seen=False)
        for number, found in enumerate(every):
            scores = np.empty(len(rows), dtype=np.float32)
            scores[rows.rows(found.item_ids)] = found.scores
            np.testing.assert_allclose(scores, expected[number], atol=1e-5)
        users += len(given)
    assert users > 1000


def test_what_was_seen_is_left_out_and_ties_go_by_row(run, shared, data_of):
    data = data_of(run, "hydra_joint")
    expected, cases = evaluation_scores(run, data, "train.hydra_joint", "books")
    histories = histories_of(data, cases)[:50]
    for number, found in enumerate(shared.recommend_many(histories, 10, domain="books")):
        seen = shared.catalogue("books").rows(histories[number])
        scores = expected[number].copy()
        scores[seen] = -np.inf
        assert not set(found.item_ids) & set(histories[number])
        assert found.item_ids == shared.catalogue("books").ids(
            np.argsort(-scores, kind="stable")[:10]
        )


@pytest.mark.parametrize("split", [0, 1, 5, 19])
def test_updates_are_a_prefill_at_any_split(split, shared):
    ids = shared.catalogue("garden").ids(np.random.default_rng(0).integers(0, 60, 20))
    state = shared.state_of("garden", ids[:split])
    for item in ids[split:]:
        state = shared.update(state, item)
    whole, _another = shared.states_of("garden", [ids, ids[:1]]).split()
    for name, tensor in whole.model.to_dict().items():
        torch.testing.assert_close(state.model.to_dict()[name], tensor, rtol=1e-5, atol=1e-5)
    assert np.array_equal(state.seen.rows, whole.seen.rows)
    assert shared.recommend(state, 5).item_ids == shared.recommend(ids, 5, domain="garden").item_ids


@pytest.mark.parametrize("events", [1, 49, 50, 51])
def test_one_short_history_is_stepped_through_and_many_are_one_pass(events, shared):
    ids = shared.catalogue("garden").ids(np.random.default_rng(0).integers(0, 60, events))
    alone, (together, _another) = (
        shared.state_of("garden", ids),
        shared.states_of("garden", [ids, ids[:1]]).split(),
    )
    for name, tensor in together.model.to_dict().items():
        torch.testing.assert_close(alone.model.to_dict()[name], tensor, rtol=1e-5, atol=1e-5)


def test_many_users_are_updated_at_once(shared):
    ids = shared.catalogue("books").ids(range(6))
    states = UserState.join([shared.state_of("books", ids[:n]) for n in range(4)])
    after = shared.update_many(states, [ids[5]] * 4)
    for number, alone in enumerate(after.split()):
        one = shared.update(shared.state_of("books", ids[:number]), ids[5])
        for name, tensor in one.model.to_dict().items():
            torch.testing.assert_close(alone.model.to_dict()[name], tensor, rtol=1e-5, atol=1e-6)
        assert np.array_equal(alone.seen.rows, one.seen.rows)
    mixed = shared.recommend_many([ids[:2], after.split()[1], ids[:3]], 4, domain="books")
    assert [r.item_ids for r in mixed] == [
        shared.recommend(user, 4, domain="books").item_ids
        for user in (ids[:2], after.split()[1], ids[:3])
    ]


def test_a_window_is_kept_or_streamed_past(bundle, shared):
    assert shared.window == 50
    ids = shared.catalogue("books").ids(np.random.default_rng(1).integers(0, 60, 60))
    state = shared.state_of("books", ids)
    assert state.events.tolist() == [50]
    assert len(state.seen.rows) == 60
    latest = shared.state_of("books", ids[-50:])
    for name, tensor in latest.model.to_dict().items():
        assert torch.equal(state.model.to_dict()[name], tensor)
    with pytest.raises(ValueError, match="had 50 events"):
        shared.update(state, ids[0])
    past = Recommender.load(bundle, stream_past_window=True)
    whole = past.state_of("books", ids)
    assert whole.events.tolist() == [60]
    assert past.update(whole, ids[0]).events.tolist() == [61]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rec: rec.recommend(["no such"], domain="books"), "no item 'no such'"),
        (lambda rec: rec.recommend([], domain="books"), "no events"),
        (lambda rec: rec.recommend(["no such"]), "domain: got none, expected one of books, garden"),
        (lambda rec: rec.catalogue("toys"), "'toys', expected one of books, garden"),
        (lambda rec: rec.update(rec.start("books", 2), "x"), "got 1 for 2 users"),
        (lambda rec: rec.recommend(rec.start("books", 2)), "got 2 users, expected 1"),
        (
            lambda rec: UserState.join([rec.start("books"), rec.start("garden")]),
            "states: got those of books",
        ),
        (lambda rec: rec.recommend(rec.catalogue("books").ids([0]), 0, domain="books"), "k: got 0"),
    ],
)
def test_mistakes_are_told(call, message, shared):
    with pytest.raises(ValueError, match=message):
        call(shared)


def test_a_catalogue_is_searched(shared):
    books = shared.catalogue("books")
    assert books.row(books.id(7)) == 7
    words = books.texts(7).split()
    assert 7 in books.search(" ".join(words[:2]).upper(), len(books))
    assert books.search(books.texts(7), 1) == [
        min(row for row in range(60) if books.texts(row).startswith(books.texts(7)))
    ]
    assert books.search("zebra unheard of", 5) == books.search("", 5) == []


def test_threads_get_what_one_gets(bundle):
    rec = Recommender.load(bundle)
    ids = rec.catalogue("books").ids(np.random.default_rng(2).integers(0, 60, (16, 8)).ravel())
    histories = [ids[at : at + 8] for at in range(0, len(ids), 8)]
    expected = [rec.recommend(history, 5, domain="books").item_ids for history in histories]
    found = [None] * len(histories)

    def work(number):
        state = rec.start("books")
        for item in histories[number]:
            state = rec.update(state, item)
        found[number] = rec.recommend(state, 5).item_ids

    threads = [threading.Thread(target=work, args=[n]) for n in range(len(histories))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
