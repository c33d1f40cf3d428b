"""The leak check: held-out events must not be known before they are asked for.

It counts events anew from corpus and roles, and shares no code with what it checks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus import Corpus
from pipeline.histories import (
    KNOWN,
    ROLE_NUMBERS,
    TRAIN,
    VALIDATION,
    EvaluationCases,
    HeldOutRole,
    Ints,
    Roles,
    TrainingHistories,
)

_ROWS = 1 << 16


class LeakError(ValueError):
    """Something held out is known too early."""


def check_no_leak(
    corpus: Corpus, roles: Roles, histories: TrainingHistories | None, *cases: EvaluationCases
) -> None:
    """Check that nothing held out is trained on or stands in a history before its time.

    Args:
        corpus: U rows, E events.
        roles: int8 [E].
        histories: what a model trains on.
        cases: what it will be asked.

    Raises:
        LeakError: a held-out event is followed by a training event of its (user, domain), is in
            the histories, or is in the history of a case that may not know it.
    """
    _check_order_of_roles(corpus, roles)
    if histories is not None:
        _check_user_order(corpus, histories.users)
        for rows in _some_rows(corpus):
            allowed = np.flatnonzero(roles[_events(corpus, rows)] == TRAIN)
            extra = _beyond(
                _held(corpus, rows, histories.users, histories.offsets, histories.items),
                _allowed(corpus, rows, allowed),
            )
            if extra is not None:
                who = _who(corpus, extra)
                raise LeakError(f"the training histories hold what is held out: {who}")
    for part in cases:
        _check_cases(corpus, roles, part)


def _check_order_of_roles(corpus: Corpus, roles: Roles) -> None:
    """Within one (user, domain): train, then validation, then test; KNOWN may stand anywhere."""
    for rows in _some_rows(corpus):
        events = _events(corpus, rows)
        users, domains = corpus.event_users[events], corpus.event_domains[events]
        group, own = users * np.int64(len(corpus.domains)) + domains, roles[events]
        order = np.argsort(group, kind="stable")
        order = order[own[order] != KNOWN]
        same = group[order][1:] == group[order][:-1]
        back = same & (own[order][1:] < own[order][:-1])
        if back.any():
            (key,) = _allowed(corpus, rows, order[1:][back][:1])
            who = _who(corpus, int(key))
            raise LeakError(f"an event after a held-out one has an earlier role: {who}")


def _check_cases(corpus: Corpus, roles: Roles, cases: EvaluationCases) -> None:
    own = corpus.event_domains == corpus.domain_number(cases.domain)
    role, at = _target_events(corpus, roles, own, cases)
    # When each row's target comes; the others' never, so that nothing of theirs is allowed.
    moment = np.full(corpus.n_users, -1, dtype=np.int64)
    moment[cases.users] = at
    _check_user_order(corpus, cases.users)
    for rows in _some_rows(corpus):
        events = _events(corpus, rows)
        known = (roles[events] == TRAIN) | (roles[events] == KNOWN)
        if role == "test":
            known |= own[events] & (roles[events] == VALIDATION)
        early = np.arange(events.start, events.stop) < moment[corpus.event_users[events]]
        extra = _beyond(
            _held(corpus, rows, cases.users, cases.offsets, cases.history),
            _allowed(corpus, rows, np.flatnonzero(known & early)),
        )
        if extra is not None:
            raise LeakError(
                f"the history of a {role} case of {cases.domain} holds an event that is held out "
                f"or comes later: {_who(corpus, extra)}"
            )


def _target_events(
    corpus: Corpus, roles: Roles, own: NDArray[np.bool_], cases: EvaluationCases
) -> tuple[HeldOutRole, Ints]:
    """The cases' role and the events that are their targets: the first of the role in each row."""
    names: tuple[HeldOutRole, HeldOutRole] = ("test", "validation")
    for name in names:
        events = np.flatnonzero(own & (roles == ROLE_NUMBERS[name]))
        rows, first = np.unique(corpus.event_users[events], return_index=True)
        place = np.searchsorted(rows, cases.users)
        inside = place < len(rows)
        if not inside.all() or not np.array_equal(rows[place], cases.users):
            continue
        at = events[first][place]
        if np.array_equal(corpus.items[at], cases.targets):
            return name, at
    raise LeakError(
        f"the targets of the cases of {cases.domain} are not its users' held-out events: they were "
        "made with other roles or another corpus"
    )


def _some_rows(corpus: Corpus) -> Iterator[slice]:
    """All rows, some at a time: keys of all events at once would take 60 bytes for each."""
    for first in range(0, corpus.n_users, _ROWS):
        yield slice(first, min(first + _ROWS, corpus.n_users))


def _events(corpus: Corpus, rows: slice) -> slice:
    return slice(int(corpus.offsets[rows.start]), int(corpus.offsets[rows.stop]))


def _allowed(corpus: Corpus, rows: slice, places: NDArray[np.intp]) -> Ints:
    """The keys of events of some rows, counted from the first of them."""
    events = _events(corpus, rows).start + places
    return _keys(corpus, corpus.event_users[events], corpus.items[events])


def _check_user_order(corpus: Corpus, users: Ints) -> None:
    """See that all histories are looked at when the rows are, some at a time.

    Raises:
        LeakError: the users are not those of rows, in order, so that some would go unchecked.
    """
    if len(users) and ((np.diff(users) < 0).any() or users[0] < 0 or users[-1] >= corpus.n_users):
        raise LeakError("the users of histories are no rows of the corpus, or not in their order")


def _held(corpus: Corpus, rows: slice, users: Ints, offsets: Ints, items: Ints) -> Ints:
    """The keys of what stands in the histories of some rows' users, who are in their order."""
    first, last = np.searchsorted(users, [rows.start, rows.stop])
    owners = np.repeat(users[first:last], np.diff(offsets[first : last + 1]))
    return _keys(corpus, owners, items[offsets[first] : offsets[last]])


def _keys(corpus: Corpus, users: NDArray[np.integer], items: NDArray[np.integer]) -> Ints:
    return users.astype(np.int64) * corpus.n_items + items


def _beyond(keys: Ints, allowed: Ints) -> int | None:
    """A key that occurs more often than allowed, or None."""
    values, counts = np.unique(keys, return_counts=True)
    allowed_values, allowed_counts = np.unique(allowed, return_counts=True)
    if not len(values):
        return None
    place = np.searchsorted(allowed_values, values)
    padded = np.append(allowed_values, -1)
    limit = np.where(padded[place] == values, np.append(allowed_counts, 0)[place], 0)
    over = values[counts > limit]
    return int(over[0]) if len(over) else None


def _who(corpus: Corpus, key: int) -> str:
    user, item = divmod(key, corpus.n_items)
    return f"user {corpus.user_keys[user]}, item {corpus.item_ids[item]}"
