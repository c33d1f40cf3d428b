"""The leak check finds each of these, whoever made them."""

import numpy as np
import pytest

from pipeline.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    LeakError,
    SplitConfig,
    TrainingHistories,
    assign_roles,
    check_no_leak,
    evaluation_cases,
    training_histories,
)
from tests.pipeline.test_splits import A, B, crowd


@pytest.fixture
def clean(corpus_of):
    corpus = corpus_of({"a": A, "b": B})
    return corpus, assign_roles(corpus, SplitConfig())


@pytest.mark.parametrize("role", [VALIDATION, TEST])
def test_training_on_what_is_held_out_is_a_leak(clean, role):
    corpus, roles = clean
    leaky = training_histories(corpus, np.where(roles == role, TRAIN, roles).astype(np.int8))
    with pytest.raises(LeakError, match="training histories hold what is held out: user main:u"):
        check_no_leak(corpus, roles, leaky)


def test_training_on_an_event_twice_is_a_leak(clean):
    corpus, roles = clean
    once = training_histories(corpus, roles, ["b"])
    items = once.items[[0, 1, 1]]
    twice = TrainingHistories(offsets=np.array([0, 3]), items=items, users=once.users)
    with pytest.raises(LeakError, match="item b2"):
        check_no_leak(corpus, roles, twice)


def test_another_domains_held_out_event_in_a_history_is_a_leak(clean):
    corpus, roles = clean
    relaxed = roles.copy()
    relaxed[(roles == VALIDATION) & (corpus.event_domains == 1)] = TRAIN
    leaky = evaluation_cases(corpus, relaxed, "a", "test", None, own_domain_only=False)
    with pytest.raises(
        LeakError, match=r"the history of a test case of a .*: user main:u, item b3"
    ):
        check_no_leak(corpus, roles, None, leaky)


def test_an_event_after_the_target_in_a_history_is_a_leak(clean):
    corpus, roles = clean
    cases = evaluation_cases(corpus, roles, "a", "validation", None, own_domain_only=True)
    cases.history[-1] = corpus.items[corpus.items.tolist().index(list(corpus.item_ids).index("b2"))]
    check_no_leak(corpus, roles, None, cases)  # b2 came before a3, so that it may be known
    later = cases.targets.copy()
    cases.history[-1] = later[0]
    with pytest.raises(LeakError, match=r"validation case of a .* item a3"):
        check_no_leak(corpus, roles, None, cases)


def test_targets_that_were_never_held_out_are_refused(clean):
    corpus, roles = clean
    cases = evaluation_cases(corpus, roles, "a", "test", None, own_domain_only=True)
    cases.targets[:] = 0
    with pytest.raises(LeakError, match="are not its users' held-out events"):
        check_no_leak(corpus, roles, None, cases)


@pytest.mark.parametrize("users", [[1, 0], [0, 7], [-1, 0]])
def test_histories_of_users_that_would_go_unchecked_are_refused(clean, users):
    corpus, roles = clean
    offsets, items = np.array([0, 1, 2]), np.zeros(2, dtype=np.int64)
    lost = TrainingHistories(offsets=offsets, items=items, users=np.array(users))
    with pytest.raises(LeakError, match="no rows of the corpus, or not in their order"):
        check_no_leak(corpus, roles, lost)


@pytest.mark.parametrize("role", [VALIDATION, TEST])
def test_a_leak_in_the_last_rows_is_found(corpus_of, monkeypatch, role):
    monkeypatch.setattr("pipeline.leaks._ROWS", 3)
    corpus = corpus_of({"a": crowd(10)})
    roles = assign_roles(corpus, SplitConfig())
    relaxed = roles.copy()
    last = corpus.event_users == corpus.n_users - 1
    relaxed[last & (roles == role)] = TRAIN
    leaky = training_histories(corpus, relaxed)
    with pytest.raises(LeakError, match=f"user {corpus.user_keys[corpus.n_users - 1]}"):
        check_no_leak(corpus, roles, leaky)


def test_roles_out_of_order_are_a_leak(clean):
    corpus, roles = clean
    with pytest.raises(LeakError, match="an event after a held-out one has an earlier role"):
        check_no_leak(corpus, roles[::-1].copy(), None)
