"""Splits: which event trains, which chooses, which tests.

All names of this stage can be imported from here; histories.py and leaks.py hold the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.corpus import Corpus
from pipeline.histories import (
    KNOWN,
    TEST,
    TRAIN,
    VALIDATION,
    EvaluationCases,
    HeldOutRole,
    TrainingHistories,
    evaluation_cases,
    training_histories,
)
from pipeline.leaks import LeakError, check_no_leak
from pipeline.stable_hash import hash_text, hash_texts, mixed, uniform

__all__ = [
    "KNOWN",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "EvaluationCases",
    "HeldOutRole",
    "LeakError",
    "SplitConfig",
    "TrainingHistories",
    "assign_roles",
    "check_no_leak",
    "evaluation_cases",
    "training_histories",
]

# A person with fewer events in a domain has none held out there, so that one is left to train.
FEWEST_EVENTS = 3

SplitKind = Literal["strict", "refit", "time"]


class SplitConfig(BaseModel):
    """How events are held out, for each (user, domain). Our choice [D], as the field does it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    CAME_LATER: ClassVar[Mapping[str, Any]] = {"cold_items": 0.0, "train_people": {}}

    kind: SplitKind = Field(
        "strict",
        description="strict: the last event is test, the one before validation, neither trains; "
        "refit: the validation event trains too (choose on strict, then train again); time: "
        "global cut-offs",
    )
    max_history: int | None = Field(
        50, ge=1, description="events of a history that a model sees, the latest; null: all"
    )
    validation_from: int | None = Field(
        None, description="kind time: events from this unix second on are held out for validation"
    )
    test_from: int | None = Field(
        None, description="kind time: events from this unix second on are held out for test"
    )

    cold_items: float = Field(
        0.0, ge=0, lt=1,
        description="share of each domain's items, chosen by a hash, that are never learned from: "
        "they stand in histories and among the candidates, are no negatives, and are known by "
        "their text alone",
    )  # fmt: skip
    train_people: dict[str, float] = Field(
        default_factory=dict,
        description="by domain: share of its people, chosen by a hash, whose events are learned "
        "from; a smaller share is part of a larger, the others are only tested. 0: a new domain",
    )

    @model_validator(mode="after")
    def _shares_are_shares(self) -> SplitConfig:
        for name, share in self.train_people.items():
            if not 0 <= share <= 1:
                raise ValueError(f"train_people.{name}: got {share}, expected 0 to 1")
        return self

    @model_validator(mode="after")
    def _cut_offs_belong_to_time(self) -> SplitConfig:
        cuts = (self.validation_from, self.test_from)
        if self.kind != "time" and cuts != (None, None):
            raise ValueError(
                f"validation_from and test_from belong to `kind: time`, but kind is {self.kind}: "
                "remove them or change the kind"
            )
        if self.kind == "time" and (cuts[0] is None or cuts[1] is None or cuts[0] >= cuts[1]):
            raise ValueError(
                f"`kind: time` needs validation_from < test_from (unix seconds), got {cuts[0]} and "
                f"{cuts[1]}"
            )
        return self

    def people_of(self, domain: str) -> float:
        """The share of the domain's people whose events are learned from."""
        return self.train_people.get(domain, 1.0)

    def for_domains(self, names: Collection[str]) -> SplitConfig:
        """What the split says of some domains: who is left out elsewhere does not count."""
        people = {
            name: share for name, share in self.train_people.items() if name in names and share < 1
        }
        return self.model_copy(update={"train_people": people})


def assign_roles(corpus: Corpus, split: SplitConfig) -> NDArray[np.int8]:
    """TRAIN, VALIDATION, TEST or KNOWN for each event, int8 [E], by (user, domain).

    strict: the last event is test, the one before it validation.
    refit: the last event is test, all others train.
    time: events from test_from on are test, those from validation_from on validation.
    In strict and refit a person with fewer than 3 events in a domain only trains there. In time
    nobody's held-out event trains; who has no event before the cut-off is never asked.
    Training and validation events of cold items, and of people left out, are KNOWN instead.

    Raises:
        ValueError: kind `time` and a domain without times, or train_people of an unknown domain.
    """
    roles = (
        _roles_by_time(corpus, split) if split.kind == "time" else _roles_by_place(corpus, split)
    )
    never = _of_cold_items(corpus, split.cold_items)
    for domain, share in split.train_people.items():
        never |= _of_people_left_out(corpus, domain, share)
    roles[never & (roles != TEST)] = KNOWN
    return roles


def _roles_by_place(corpus: Corpus, split: SplitConfig) -> NDArray[np.int8]:
    roles = np.full(corpus.n_events, TRAIN, dtype=np.int8)
    for _, events in corpus.row_blocks():
        from_last, length = _places_from_last(corpus, events)
        held_out, own = length >= FEWEST_EVENTS, roles[events]
        own[held_out & (from_last == 0)] = TEST
        if split.kind == "strict":
            own[held_out & (from_last == 1)] = VALIDATION
    return roles


def _roles_by_time(corpus: Corpus, split: SplitConfig) -> NDArray[np.int8]:
    for domain in corpus.domains:
        if domain.order == "sequence":
            raise ValueError(
                f"the domain {domain.name} has no times, so it cannot be split by `kind: time`: "
                "choose strict or refit, or leave it out"
            )
    cut_offs = np.array([split.validation_from, split.test_from], dtype=np.int64)
    return np.searchsorted(cut_offs, corpus.timestamps, side="right").astype(np.int8)


def _of_cold_items(corpus: Corpus, share: float) -> NDArray[np.bool_]:
    """Whether each event is of an item that is never learned from, bool [E]."""
    if not share:
        return np.zeros(corpus.n_events, dtype=bool)
    cold_I = np.zeros(corpus.n_items, dtype=bool)
    for domain in corpus.domains:
        mine = slice(domain.first_item, domain.first_item + domain.n_items)
        ids = hash_texts(corpus.item_ids[item] for item in range(mine.start, mine.stop))
        cold_I[mine] = uniform(mixed(hash_text(domain.name), hash_text("cold"), ids)) < share
    return cold_I[corpus.items]


def _of_people_left_out(corpus: Corpus, domain: str, share: float) -> NDArray[np.bool_]:
    """Whether each event is of a person whose events of this domain are not learned from."""
    own = corpus.event_domains == corpus.domain_number(domain)
    people = np.unique(corpus.event_users[own])
    keys = hash_texts(corpus.user_keys[int(person)] for person in people)
    learned = uniform(mixed(hash_text(domain), hash_text("people"), keys)) < share
    left_out_U = np.zeros(corpus.n_users, dtype=bool)
    left_out_U[people[~learned]] = True
    return own & left_out_U[corpus.event_users]


def _places_from_last(corpus: Corpus, events: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each event of whole rows: its place from the last of its (user, domain), and how many
    that has.
    """
    users, domains = corpus.event_users[events], corpus.event_domains[events]
    group = users * np.int64(len(corpus.domains)) + domains
    order = np.argsort(group, kind="stable")  # within a group the total order stays
    sorted_group = group[order]
    end = np.searchsorted(sorted_group, sorted_group, side="right")
    begin = np.searchsorted(sorted_group, sorted_group, side="left")
    from_last, length = np.empty_like(group), np.empty_like(group)
    from_last[order] = end - 1 - np.arange(len(order))
    length[order] = end - begin
    return from_last, length
