import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.histories import training_counts
from pipeline.splits import (
    KNOWN,
    TEST,
    TRAIN,
    VALIDATION,
    SplitConfig,
    assign_roles,
    check_no_leak,
    evaluation_cases,
    training_histories,
)
from user_model.config_keys import key_fields

events = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd"), st.integers(0, 9)),
    min_size=1,
    max_size=20,
)
splits = st.sampled_from(
    [SplitConfig(), SplitConfig(kind="refit"),
     SplitConfig(kind="time", validation_from=4, test_from=7),
     SplitConfig(cold_items=0.4), SplitConfig(train_people={"a": 0.5}, cold_items=0.2)]
)  # fmt: skip
A = [
    ("u", "a1", 10),
    ("u", "a2", 20),
    ("u", "a3", 30),
    ("u", "a4", 40),
    ("v", "a1", 5),
    ("v", "a2", 6),
]
B = [("u", "b1", 15), ("u", "b2", 25), ("u", "b3", 35), ("u", "b4", 45)]


def named(corpus, positions):
    return [corpus.item_ids[int(position)] for position in positions]


def by_item(corpus, roles, user="main:u"):
    row = list(corpus.user_keys).index(user)
    begin, end = corpus.offsets[row : row + 2]
    return dict(zip(named(corpus, corpus.items[begin:end]), roles[begin:end].tolist(), strict=True))


def cases_by_hand(corpus, roles, domain, role, max_history, own_domain_only):
    """The specification of evaluation_cases, one event after another."""
    wanted = {"validation": VALIDATION, "test": TEST}[role]
    number = corpus.domain_number(domain)
    found = []
    for user in range(corpus.n_users):
        history, seen, has_own = [], set(), False
        for event in range(*corpus.offsets[user : user + 2]):
            own, item = corpus.event_domains[event] == number, int(corpus.items[event])
            if own and roles[event] == wanted:
                if has_own:
                    kept = history if max_history is None else history[-max_history:]
                    found.append((user, kept, sorted(seen - {item}), item))
                break
            if roles[event] in (TRAIN, KNOWN) or (
                own and role == "test" and roles[event] == VALIDATION
            ):
                has_own = has_own or own
                if own or not own_domain_only:
                    history.append(item)
                if own:
                    seen.add(item)
    return found


def as_list(cases):
    return [
        (
            int(user),
            cases.history[cases.offsets[n] : cases.offsets[n + 1]].tolist(),
            cases.seen[cases.seen_offsets[n] : cases.seen_offsets[n + 1]].tolist(),
            int(cases.targets[n]),
        )
        for n, user in enumerate(cases.users)
    ]


def test_strict_holds_out_the_last_two_of_each_user_and_domain(corpus_of):
    corpus = corpus_of({"a": A, "b": B})
    roles = assign_roles(corpus, SplitConfig())
    assert roles.dtype == np.int8
    assert by_item(corpus, roles) == {
        "a1": TRAIN, "a2": TRAIN, "a3": VALIDATION, "a4": TEST,
        "b1": TRAIN, "b2": TRAIN, "b3": VALIDATION, "b4": TEST,
    }  # fmt: skip


def test_fewer_than_three_events_only_train(corpus_of):
    corpus = corpus_of({"a": A})
    for split in (SplitConfig(), SplitConfig(kind="refit")):
        assert by_item(corpus, assign_roles(corpus, split), "main:v") == {"a1": TRAIN, "a2": TRAIN}


def test_refit_trains_on_the_validation_event(corpus_of):
    corpus = corpus_of({"a": A})
    strict, refit = (assign_roles(corpus, SplitConfig(kind=kind)) for kind in ("strict", "refit"))
    assert np.array_equal(refit, np.where(strict == VALIDATION, TRAIN, strict))


def test_time_cuts_at_the_given_seconds(corpus_of):
    corpus = corpus_of({"a": A, "b": B})
    roles = assign_roles(corpus, SplitConfig(kind="time", validation_from=20, test_from=35))
    assert by_item(corpus, roles) == {
        "a1": TRAIN, "b1": TRAIN, "a2": VALIDATION, "b2": VALIDATION, "a3": VALIDATION,
        "b3": TEST, "a4": TEST, "b4": TEST,
    }  # fmt: skip


def test_time_needs_times(domain_of, merge):
    corpus = merge([domain_of("a", A, order="sequence")])
    with pytest.raises(ValueError, match="the domain a has no times"):
        assign_roles(corpus, SplitConfig(kind="time", validation_from=1, test_from=2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "time"}, "needs validation_from < test_from"),
        (
            {"kind": "time", "validation_from": 5, "test_from": 5},
            "needs validation_from < test_from",
        ),
        ({"kind": "strict", "test_from": 5}, "belong to `kind: time`, but kind is strict"),
        ({"kind": "loose"}, "'strict', 'refit' or 'time'"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        SplitConfig.model_validate(fields)


def test_joint_histories_interleave_and_single_ones_do_not(corpus_of):
    corpus = corpus_of({"a": A, "b": B})
    roles = assign_roles(corpus, SplitConfig())
    joint = training_histories(corpus, roles)
    assert joint.offsets.tolist() == [0, 4, 6]
    assert named(corpus, joint.items) == ["a1", "b1", "a2", "b2", "a1", "a2"]
    alone = training_histories(corpus, roles, ["b"])
    assert (alone.offsets.tolist(), alone.users.tolist()) == ([0, 2], [0])
    assert named(corpus, alone.items) == ["b1", "b2"]


def test_a_row_with_one_training_event_is_left_out(corpus_of):
    corpus = corpus_of({"a": A[:3]})
    histories = training_histories(corpus, assign_roles(corpus, SplitConfig()))
    assert (histories.offsets.tolist(), len(histories.items)) == ([0], 0)


def test_what_a_case_may_know(corpus_of):
    corpus = corpus_of({"a": A, "b": B})
    roles = assign_roles(corpus, SplitConfig())

    def history(domain, role, own):
        (case,) = as_list(evaluation_cases(corpus, roles, domain, role, None, own_domain_only=own))
        return named(corpus, case[1]), named(corpus, case[2]), named(corpus, case[3:])

    assert history("a", "validation", False) == (["a1", "b1", "a2", "b2"], ["a1", "a2"], ["a3"])
    assert history("a", "test", False) == (
        ["a1", "b1", "a2", "b2", "a3"],
        ["a1", "a2", "a3"],
        ["a4"],
    )
    assert history("b", "test", True) == (["b1", "b2", "b3"], ["b1", "b2", "b3"], ["b4"])


def test_the_latest_events_stay_and_what_was_seen_stays_whole(corpus_of):
    corpus = corpus_of({"a": A})
    roles = assign_roles(corpus, SplitConfig())
    (case,) = as_list(evaluation_cases(corpus, roles, "a", "test", 1, own_domain_only=True))
    assert named(corpus, case[1]) == ["a3"]
    assert named(corpus, case[2]) == ["a1", "a2", "a3"]


def test_a_target_that_was_seen_before_is_not_among_the_seen(domain_of, merge):
    bare = [("u", item, 0) for item in ("p", "q", "p", "p")]
    corpus = merge([domain_of("a", bare, order="sequence")])
    roles = assign_roles(corpus, SplitConfig())
    (case,) = as_list(evaluation_cases(corpus, roles, "a", "test", 50, own_domain_only=False))
    assert [named(corpus, part) for part in case[1:3]] == [["p", "q", "p"], ["q"]]


def test_a_domain_in_which_nobody_can_be_asked_is_named(corpus_of):
    corpus = corpus_of({"a": [("u", "x", 1), ("u", "y", 2)]})
    roles = assign_roles(corpus, SplitConfig())
    with pytest.raises(ValueError, match="the domain a has no test cases"):
        evaluation_cases(corpus, roles, "a", "test", 50, own_domain_only=True)


@given(events, events, splits, st.sampled_from([None, 1, 3]), st.booleans(), st.booleans())
def test_cases_are_those_made_by_hand_and_nothing_leaks(
    corpus_of, first, second, split, max_history, own, test
):
    corpus = corpus_of({"a": first, "b": second})
    roles = assign_roles(corpus, split)
    role = "test" if test else "validation"
    expected = cases_by_hand(corpus, roles, "a", role, max_history, own)
    histories = training_histories(corpus, roles)
    if not expected:
        with pytest.raises(ValueError, match=f"has no {role} cases"):
            evaluation_cases(corpus, roles, "a", role, max_history, own_domain_only=own)
        check_no_leak(corpus, roles, histories)
        return
    cases = evaluation_cases(corpus, roles, "a", role, max_history, own_domain_only=own)
    assert as_list(cases) == expected
    check_no_leak(corpus, roles, histories, cases)


@given(events, events, splits)
def test_the_parts_of_a_split_are_disjoint_and_follow_one_another(corpus_of, first, second, split):
    corpus = corpus_of({"a": first, "b": second})
    roles = assign_roles(corpus, split)
    assert set(np.unique(roles)) <= {TRAIN, VALIDATION, TEST, KNOWN}
    order = {TRAIN: 0, KNOWN: 0, VALIDATION: 1, TEST: 2}
    for user in range(corpus.n_users):
        events = np.arange(*corpus.offsets[user : user + 2])
        for domain in range(2):
            mine = events[corpus.event_domains[events] == domain]
            parts = [order[int(role)] for role in roles[mine]]
            assert parts == sorted(parts)
            if split.kind != "time":
                assert parts.count(1) <= 1
                assert parts.count(2) <= 1
            for earlier, later in ((0, 1), (1, 2)):
                times = [[int(corpus.timestamps[e]) for e, part in zip(mine, parts, strict=True)
                          if part == wanted] for wanted in (earlier, later)]  # fmt: skip
                assert not all(times) or max(times[0]) <= min(times[1])


def crowd(people=400):
    """Many people with five events each, of 60 items."""
    draws = np.random.default_rng(0)
    return [
        (f"u{person}", f"i{item}", moment)
        for person in range(people)
        for moment, item in enumerate(draws.choice(60, 5, replace=False))
    ]


def cold_items(corpus, share):
    roles = assign_roles(corpus, SplitConfig(cold_items=share))
    return roles, set(named(corpus, np.unique(corpus.items[roles == KNOWN])))


def test_cold_items_are_known_and_never_learned_from(corpus_of):
    corpus = corpus_of({"a": crowd()})
    usual = assign_roles(corpus, SplitConfig())
    roles, cold = cold_items(corpus, 0.2)
    assert 6 <= len(cold) <= 18
    is_cold = np.isin(named(corpus, corpus.items), sorted(cold))
    assert np.array_equal(roles, np.where(is_cold & (usual != TEST), KNOWN, usual))
    learned = training_histories(corpus, roles)
    assert not cold & set(named(corpus, learned.items))
    cases = evaluation_cases(corpus, roles, "a", "test", None, own_domain_only=True)
    assert cold & set(named(corpus, cases.history))
    assert cold & set(named(corpus, cases.targets))
    check_no_leak(corpus, roles, learned, cases)


def test_cold_items_of_a_smaller_share_are_part_of_a_larger(corpus_of):
    corpus = corpus_of({"a": crowd()})
    few, many = cold_items(corpus, 0.1)[1], cold_items(corpus, 0.3)[1]
    assert few < many
    assert cold_items(corpus, 0.0)[1] == set()


def test_which_items_are_cold_does_not_depend_on_other_domains(corpus_of):
    alone = cold_items(corpus_of({"a": crowd(100)}), 0.2)[1]
    others = [(user, f"other-{item}", moment) for user, item, moment in crowd(50)]
    _, both = cold_items(corpus_of({"b": others, "a": crowd(100)}), 0.2)
    assert alone == {item for item in both if not item.startswith("other")}


def learners(corpus, share, domain="a"):
    """The people whose events of the domain are learned from."""
    roles = assign_roles(corpus, SplitConfig(train_people={domain: share}))
    own = corpus.event_domains == corpus.domain_number(domain)
    return roles, set(corpus.event_users[own & (roles == TRAIN)].tolist())


def test_people_left_out_are_tested_and_never_learned_from(corpus_of):
    corpus = corpus_of({"a": crowd(), "b": B})
    usual = assign_roles(corpus, SplitConfig())
    roles, some = learners(corpus, 0.25)
    assert 60 <= len(some) <= 140
    left_out = (corpus.event_domains == 0) & ~np.isin(corpus.event_users, sorted(some))
    assert np.array_equal(roles, np.where(left_out & (usual != TEST), KNOWN, usual))
    asked = evaluation_cases(corpus, roles, "a", "test", 50, own_domain_only=True)
    whole = evaluation_cases(corpus, usual, "a", "test", 50, own_domain_only=True)
    assert as_list(asked) == as_list(whole)
    check_no_leak(corpus, roles, training_histories(corpus, roles), asked)


def test_people_of_a_smaller_share_are_part_of_a_larger(corpus_of):
    corpus = corpus_of({"a": crowd()})
    found = [learners(corpus, share)[1] for share in (0.0, 0.1, 0.5, 1.0)]
    assert found[0] == set()
    assert found[0] < found[1] < found[2] < found[3]
    assert len(found[3]) == 400


def test_who_is_left_out_elsewhere_changes_nothing(corpus_of):
    split = SplitConfig(train_people={"a": 0.25, "b": 0.0, "c": 1.0})
    assert split.for_domains(["a"]) == SplitConfig(train_people={"a": 0.25})
    assert key_fields(split.for_domains(["c"])) == key_fields(SplitConfig())
    corpus = corpus_of({"a": crowd(80), "b": B, "c": [("u", "c1", 1)]})
    own = corpus.event_domains == 0
    roles = assign_roles(corpus, split)[own]
    assert np.array_equal(roles, assign_roles(corpus, split.for_domains(["a"]))[own])


def test_a_share_that_makes_no_sense_is_refused(corpus_of):
    with pytest.raises(ValidationError, match=r"train_people\.a: got 1\.5, expected 0 to 1"):
        SplitConfig(train_people={"a": 1.5})
    with pytest.raises(ValidationError, match="less than 1"):
        SplitConfig(cold_items=1)
    with pytest.raises(ValueError, match="no domain 'c'"):
        assign_roles(corpus_of({"a": A}), SplitConfig(train_people={"c": 0.5}))


def test_fields_that_do_nothing_leave_the_keys_of_older_outputs_as_they_were():
    older = {"kind", "max_history", "validation_from", "test_from"}
    assert key_fields(SplitConfig()).keys() == older
    assert key_fields(SplitConfig(cold_items=0.1)).keys() == older | {"cold_items"}
    assert key_fields(SplitConfig(train_people={"a": 0.0}))["train_people"] == {"a": 0.0}


@given(events, events, splits)
def test_adding_a_domain_changes_no_other_domains_split(corpus_of, first, second, split):
    def roles_in_a(corpus):
        roles = assign_roles(corpus, split)
        own = corpus.event_domains == corpus.domain_number("a")
        users = [corpus.user_keys[int(user)] for user in corpus.event_users[own]]
        items = named(corpus, corpus.items[own])
        return list(zip(users, items, corpus.timestamps[own].tolist(), roles[own], strict=True))

    alone = roles_in_a(corpus_of({"a": first}))
    assert roles_in_a(corpus_of({"b": second, "a": first})) == alone


def whole(corpus):
    """Everything that is looked up some rows at a time."""
    strict, refit = (assign_roles(corpus, SplitConfig(kind=kind)) for kind in ("strict", "refit"))
    found = [corpus.event_domains, strict, refit]
    for interleave in (True, False):
        for names in (None, ["b"]):
            histories = training_histories(
                corpus, strict, names, interleave=interleave, with_times=True
            )
            check_no_leak(corpus, strict, histories)
            found += [getattr(histories, name) for name in ("offsets", "items", "users", "times")]
    for own_domain_only in (True, False):
        cases = evaluation_cases(
            corpus, strict, "b", "test", 3, own_domain_only=own_domain_only, with_times=True
        )
        check_no_leak(corpus, strict, None, cases)
        found += [array for name, array in vars(cases).items() if name != "domain"]
    return [*found, training_counts(corpus, strict, "b")]


@pytest.mark.parametrize("most", [1, 7, 100])
def test_how_many_rows_are_looked_at_together_changes_nothing(corpus_of, monkeypatch, most):
    both = {"a": crowd(60), "b": [(f"u{20 + n % 70}", f"b{n % 9}", n % 5) for n in range(350)]}
    corpus = corpus_of(both)
    expected = whole(corpus)
    monkeypatch.setattr("pipeline.corpus._BLOCK_EVENTS", most)
    monkeypatch.setattr("pipeline.leaks._ROWS", most)
    blocks = list(corpus.row_blocks())
    assert [row for rows, _ in blocks for row in range(rows.start, rows.stop)] == list(
        range(corpus.n_users)
    )
    again = corpus_of(both)
    for got, wanted in zip(whole(again), expected, strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)
