"""Kinds of test users: whom does a model serve well, and whom badly?

Every test user of a domain stands in one bucket of each group:

    history   events of the domain before the target: 1-5, 6-20, 21-50, 51+
    item      of the target: cold (never trained on), tail, head
    taken     training events of the target: 0, 1-2, 3-5, 6-10, 11-20, 21-50, 51+
    tie       tied: the target and the event before it have the same time, so that the data do not
              say which came first; untied. No buckets in a domain without times.
    person    shared: has training events in other domains too; one domain

head: the fewest items, most taken first, that hold half of the domain's training events; of items
taken equally often the first stands in front. All groups and bounds are our choice [D].

Legend: n test users (one target each), V items of the domain.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus import Corpus
from pipeline.histories import (
    TRAIN,
    EvaluationCases,
    Roles,
    evaluation_cases,
    training_counts,
)

Rows = NDArray[np.bool_]  # bool [n]
Buckets = Mapping[str, Mapping[str, Rows]]  # group -> bucket -> the users in it

Bounds = Mapping[str, tuple[float, float]]  # bucket -> the least and the most, both in it

_HISTORY: Bounds = {"1-5": (1, 5), "6-20": (6, 20), "21-50": (21, 50), "51+": (51, np.inf)}
_TAKEN: Bounds = {
    "0": (0, 0),
    "1-2": (1, 2),
    "3-5": (3, 5),
    "6-10": (6, 10),
    "11-20": (11, 20),
    "21-50": (21, 50),
    "51+": (51, np.inf),
}
_HEAD_SHARE = 0.5


def buckets(corpus: Corpus, roles: Roles, domain: str) -> dict[str, dict[str, Rows]]:
    """Which of the domain's test users stand in which bucket.

    Args:
        corpus: all domains.
        roles: int8 [E], from `assign_roles`.
        domain: its name.

    Returns:
        group -> bucket -> bool [n], users in the order of `evaluation_cases`.

    Raises:
        ValueError: the domain is not in the corpus, or has no test cases.
    """
    timed = corpus.domain(domain).order == "time"
    cases = evaluation_cases(
        corpus, roles, domain, "test", None, own_domain_only=True, with_times=timed
    )
    taken_V = training_counts(corpus, roles, domain)
    targets = cases.targets - corpus.domain(domain).first_item
    found = {
        "history": _by_size(np.diff(cases.offsets), _HISTORY),
        "item": _by_item(taken_V, targets),
        "taken": _by_size(taken_V[targets], _TAKEN),
        "person": _by_person(corpus, roles, domain, cases),
    }
    return found | ({"tie": _by_tie(cases)} if timed else {})


def _by_size(sizes_n: NDArray[np.int64], bounds: Bounds) -> dict[str, Rows]:
    return {name: (sizes_n >= least) & (sizes_n <= most) for name, (least, most) in bounds.items()}


def _by_item(taken_V: NDArray[np.int64], targets_n: NDArray[np.int64]) -> dict[str, Rows]:
    cold = taken_V[targets_n] == 0
    head = _head(taken_V)[targets_n] & ~cold
    return {"cold": cold, "tail": ~cold & ~head, "head": head}


def _head(taken_V: NDArray[np.int64]) -> Rows:
    """The items that stand in front until half of the events are theirs, bool [V]."""
    order = np.argsort(-taken_V, kind="stable")
    before = np.cumsum(taken_V[order]) - taken_V[order]
    head = np.zeros(len(taken_V), dtype=bool)
    head[order] = before < _HEAD_SHARE * taken_V.sum()
    return head


def _by_person(
    corpus: Corpus, roles: Roles, domain: str, cases: EvaluationCases
) -> dict[str, Rows]:
    elsewhere = (roles == TRAIN) & (corpus.event_domains != corpus.domain_number(domain))
    has_others = np.zeros(corpus.n_users, dtype=bool)
    has_others[corpus.event_users[elsewhere]] = True
    shared = has_others[cases.users]
    return {"shared": shared, "one domain": ~shared}


def _by_tie(cases: EvaluationCases) -> dict[str, Rows]:
    assert cases.times is not None, "cases of a domain with times carry them"
    tied = cases.times[cases.offsets[1:] - 1] == cases.target_times
    return {"tied": tied, "untied": ~tied}
