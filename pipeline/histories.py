"""What models train on and what they are asked, cut out of a corpus by the events' roles.

Legend: U rows of the corpus, E its events, S training histories, n cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus import Corpus

Ints = NDArray[np.int64]
Roles = NDArray[np.int8]
HeldOutRole = Literal["validation", "test"]

# KNOWN events stand in histories and are never learned from: of cold items, of people left out.
TRAIN, VALIDATION, TEST, KNOWN = 0, 1, 2, 3
_NOTHING = np.empty(0, dtype=np.int64)
ROLE_NUMBERS: dict[HeldOutRole, int] = {"validation": VALIDATION, "test": TEST}


@dataclass(frozen=True, eq=False)
class TrainingHistories:
    """Train-role events by person, in total order; rows with fewer than 2 are left out.

    offsets: int64 [S+1].
    items: int64, global positions.
    users: int64 [S], the row in the corpus.
    times: int64, unix seconds of the items; None where nobody asked for them.
    """

    offsets: Ints
    items: Ints
    users: Ints
    times: Ints | None = None


@dataclass(frozen=True, eq=False)
class EvaluationCases:
    """Held-out events of one domain, each with what may be known before it.

    domain: its name.
    users: int64 [n], the row in the corpus.
    offsets: int64 [n+1] into history.
    history: int64, global positions in total order, the last max_history.
    seen_offsets: int64 [n+1] into seen.
    seen: int64, global positions of the domain's items in the whole history, ascending, each
        once, without the target.
    targets: int64 [n], global positions.
    times: int64, unix seconds of history; None where nobody asked for them.
    target_times: int64 [n], unix seconds of the targets; None where times is.
    """

    domain: str
    users: Ints
    offsets: Ints
    history: Ints
    seen_offsets: Ints
    seen: Ints
    targets: Ints
    times: Ints | None = None
    target_times: Ints | None = None


def training_events(corpus: Corpus, roles: Roles, domain: str) -> NDArray[np.intp]:
    """Where the domain's train-role events stand in the corpus, ascending; raises ValueError."""
    own = corpus.event_domains == corpus.domain_number(domain)
    return np.flatnonzero(own & (roles == TRAIN))


def training_counts(corpus: Corpus, roles: Roles, domain: str) -> NDArray[np.int64]:
    """Train-role events of each of the domain's items, int64 [V]; raises ValueError."""
    info = corpus.domain(domain)
    counts_V = np.zeros(info.n_items, dtype=np.int64)
    for _, some in corpus.row_blocks():
        items = corpus.items[some][roles[some] == TRAIN] - info.first_item
        np.add.at(counts_V, items[(items >= 0) & (items < info.n_items)], 1)
    return counts_V


def training_histories(
    corpus: Corpus,
    roles: Roles,
    domains: Sequence[str] | None = None,
    *,
    interleave: bool = True,
    with_times: bool = False,
) -> TrainingHistories:
    """The train-role events of each person.

    Args:
        corpus: U rows, E events.
        roles: int8 [E], from `assign_roles`.
        domains: None for all, or the names of some.
        interleave: one history a person, whose events of all the domains follow each other in
            time; False: one history for each (person, domain).
        with_times: whether the times of the events are wanted.

    Raises:
        ValueError: a domain is not in the corpus.
    """
    names = [domain.name for domain in corpus.domains] if domains is None else domains
    numbers = [corpus.domain_number(name) for name in names]
    lengths, users, items, times = ([_NOTHING] for _ in range(4))
    for _, some in corpus.row_blocks():
        kept = (roles[some] == TRAIN) & np.isin(corpus.event_domains[some], numbers)
        events = some.start + np.flatnonzero(kept)
        events, owners, counts = _owned(corpus, events, interleave=interleave)
        lengths.append(counts)
        users.append(owners // len(corpus.domains))
        items.append(corpus.items[events].astype(np.int64))
        if with_times:
            times.append(corpus.timestamps[events].astype(np.int64))
    return TrainingHistories(
        offsets=_offsets(np.concatenate(lengths)),
        items=np.concatenate(items),
        users=np.concatenate(users),
        times=np.concatenate(times) if with_times else None,
    )


def _owned(corpus: Corpus, events: Ints, *, interleave: bool) -> tuple[Ints, Ints, Ints]:
    """Events of whole rows owner by owner, of each two at least; the owners and their counts.

    An owner is a row times the number of domains, plus the domain where they do not interleave.
    """
    owner = corpus.event_users[events].astype(np.int64) * len(corpus.domains)
    if not interleave:
        owner += corpus.event_domains[events]
        order = np.argsort(owner, kind="stable")  # within an owner the total order stays
        events, owner = events[order], owner[order]
    owners, place, lengths = np.unique(owner, return_inverse=True, return_counts=True)
    long_enough = lengths >= 2
    return events[long_enough[place]], owners[long_enough], lengths[long_enough]


def evaluation_cases(
    corpus: Corpus,
    roles: Roles,
    domain: str,
    role: HeldOutRole,
    max_history: int | None,
    *,
    own_domain_only: bool,
    with_times: bool = False,
) -> EvaluationCases:
    """One case for each person with an event of this role in the domain: their first.

    Only people who have an event of the domain in their history are asked (with strict and refit
    that is everybody), so that the cases are the same whatever else the history may hold.

    The history holds the person's events before the target that train or are KNOWN; a test case
    may see its own domain's validation events, but no other domain's. (Rows without times hold
    one domain alone, so no other's events can come in there.) Under kind `time` later events of
    the same role are neither targets nor history.

    Args:
        corpus: U rows, E events.
        roles: int8 [E], from `assign_roles`.
        domain: whose events are the targets.
        role: of the targets.
        max_history: events of the history, the latest; None for all.
        own_domain_only: leave other domains' events out, for models trained on one.
        with_times: whether the times of the history and of the targets are wanted.

    Raises:
        ValueError: the domain is not in the corpus, or nobody can be asked.
    """
    number = corpus.domain_number(domain)
    parts = []
    for _, some in corpus.row_blocks():
        own = corpus.event_domains[some] == number
        known = (roles[some] == TRAIN) | (roles[some] == KNOWN)
        if role == "test":
            known |= own & (roles[some] == VALIDATION)
        wanted, seen, shown = (
            some.start + np.flatnonzero(chosen)
            for chosen in (
                own & (roles[some] == ROLE_NUMBERS[role]),
                known & own,
                known & own if own_domain_only else known,
            )
        )
        parts.append(_cases_of(corpus, wanted, seen, shown, max_history))
    users, targets, lengths, history, seen_lengths, seen_items = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    if not len(targets):
        raise ValueError(
            f"the domain {domain} has no {role} cases: nobody has an event of that role and one "
            "before it; give it longer histories, or move the cut-offs of the split"
        )
    return EvaluationCases(
        domain=domain,
        users=users,
        offsets=_offsets(lengths),
        history=corpus.items[history].astype(np.int64),
        seen_offsets=_offsets(seen_lengths),
        seen=seen_items,
        targets=corpus.items[targets].astype(np.int64),
        times=corpus.timestamps[history].astype(np.int64) if with_times else None,
        target_times=corpus.timestamps[targets].astype(np.int64) if with_times else None,
    )


def _cases_of(
    corpus: Corpus, wanted: Ints, seen: Ints, shown: Ints, max_history: int | None
) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
    """The cases of some rows, by the places of events: what may be asked, what was seen and shown.

    Returns:
        Of each case the row, the target's place and the length of its history; the places of all
        histories; how many items each has seen, and the items.
    """
    targets = _answerable(corpus, seen, wanted)
    history, offsets = _events_before(corpus, shown, targets)
    if max_history is not None:
        history, offsets = _last(history, offsets, max_history)
    seen, seen_offsets = _events_before(corpus, seen, targets)
    items, seen_offsets = _distinct_others(corpus, seen, seen_offsets, targets)
    rows = corpus.event_users[targets].astype(np.int64)
    return rows, targets, np.diff(offsets), history, np.diff(seen_offsets), items


def _answerable(corpus: Corpus, known: Ints, wanted: Ints) -> Ints:
    """The first wanted event of each row, where a known one stands before it: int64 [n]."""
    _, first = np.unique(corpus.event_users[wanted], return_index=True)
    targets = wanted[first]
    _, offsets = _events_before(corpus, known, targets)
    return targets[np.diff(offsets) > 0]


def gather_ranges(begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """All numbers of the ranges begin[i] .. end[i] - 1, one after another, and their offsets."""
    offsets = _offsets(end - begin)
    shift = np.repeat(begin - offsets[:-1], end - begin)
    return np.arange(offsets[-1]) + shift, offsets


def _offsets(lengths: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _events_before(corpus: Corpus, events: Ints, targets: Ints) -> tuple[Ints, Ints]:
    """Those of the events that stand in each target's row before it, and their offsets."""
    row_start = corpus.offsets[corpus.event_users[targets]]
    begin, end = np.searchsorted(events, row_start), np.searchsorted(events, targets)
    places, offsets = gather_ranges(begin, end)
    return events[places], offsets


def _last(values: Ints, offsets: Ints, count: int) -> tuple[Ints, Ints]:
    end = offsets[1:]
    places, clipped = gather_ranges(np.maximum(offsets[:-1], end - count), end)
    return values[places], clipped


def _distinct_others(
    corpus: Corpus, events: Ints, offsets: Ints, targets: Ints
) -> tuple[Ints, Ints]:
    """Distinct items of each case's events, without its target."""
    case = np.repeat(np.arange(len(targets)), np.diff(offsets))
    items = corpus.items[events].astype(np.int64)
    other = items != corpus.items[targets][case]
    pairs = np.unique(case[other] * corpus.n_items + items[other])
    lengths = np.bincount(pairs // corpus.n_items, minlength=len(targets))
    return pairs % corpus.n_items, _offsets(lengths)
