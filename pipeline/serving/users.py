"""Known users: their events change their state; a state of another bundle is computed anew."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.recommender import Recommender, UserState
from pipeline.serving import limits
from pipeline.serving.kept_user import ItemEvent, KeptUser, key_of
from pipeline.serving.live import Live
from pipeline.serving.refused import RefusedError
from pipeline.serving.store import NOTHING, Store

_TRIES = 40
_LONGEST_PAUSE = 0.05  # seconds


class UserEvent(NamedTuple):
    """An item that a user chose, when, and the sender's id of the event."""

    item: str
    time: int | None
    event_id: str | None


class Applied(NamedTuple):
    """Of some events: how many changed the state, how many were there already."""

    applied: int
    duplicates: int
    replayed: int


@dataclass(frozen=True)
class _User:
    """A state, the events that it is kept with, and whether it had to be computed anew."""

    state: UserState
    events: tuple[ItemEvent, ...] = ()
    event_ids: tuple[str, ...] = ()
    replayed: bool = False


class Users:
    """The users of one server, whichever bundle answers.

    Args:
        store: where their records are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def state(self, live: Live, domain: str, user: str) -> tuple[UserState, bool]:
        """The state of a known user, and whether it had to be computed anew.

        Raises:
            RefusedError: nobody has sent an event of this user, or it was long ago.
        """
        if (kept := self._store.read(key_of(domain, user))) is None:
            raise RefusedError(
                404,
                "unknown_user",
                f"user {user!r} of {domain!r} is not known: events were never sent, or their "
                "state has left the store; send a history instead",
            )
        known = _user(live, self._store, domain, KeptUser.from_bytes(kept.value))
        return known.state, known.replayed

    def append(self, live: Live, domain: str, user: str, events: Sequence[UserEvent]) -> Applied:
        """Let events of one user change their state; events with a known id change nothing.

        Raises:
            RefusedError: the model reads times and they do not fit, or other writers came first
                every time.
        """
        key = key_of(domain, user)
        for _ in range(_TRIES):
            kept = self._store.read(key)
            before = _User(live.recommender.start(domain))
            if kept is not None:
                before = _user(live, self._store, domain, KeptUser.from_bytes(kept.value))
            fresh = _fresh(events, before.event_ids)
            after = _advanced(live, domain, before, fresh)
            applied = Applied(len(fresh), len(events) - len(fresh), int(before.replayed))
            if not fresh and not before.replayed:
                return applied
            value = _record(live, after).to_bytes()
            if self._store.replace(key, value, kept.stamp if kept else NOTHING):
                return applied
            time.sleep(random.random() * _LONGEST_PAUSE)
        raise RefusedError(
            503, "busy", f"user {user!r} of {domain!r} is written all the time; try again"
        )


def _user(live: Live, store: Store, domain: str, kept: KeptUser) -> _User:
    """A record as this bundle has it: its state, or one of its own from the kept events."""
    recommender = live.recommender
    if kept.schema == recommender.start(domain).schema:
        if kept.added > live.followed:  # written by a replica that is ahead by an item
            live.follow(store)
        state = UserState.from_bytes(kept.state, recommender)
        return _User(state, kept.events, kept.event_ids)
    state = computed(recommender, domain, kept.events)
    return _User(state, kept.events, kept.event_ids, replayed=True)


def _fresh(events: Sequence[UserEvent], known: Sequence[str]) -> list[UserEvent]:
    seen, fresh = set(known), []
    for event in events:
        if event.event_id is None or event.event_id not in seen:
            fresh.append(event)
            seen.add(event.event_id or "")
    return fresh


def _advanced(live: Live, domain: str, user: _User, fresh: Sequence[UserEvent]) -> _User:
    events = (*user.events, *((event.item, event.time) for event in fresh))
    ids = (*user.event_ids, *(event.event_id for event in fresh if event.event_id is not None))
    most, state = live.most_events, user.state
    if most is not None and int(state.events[0]) + len(fresh) > most:
        state = computed(live.recommender, domain, events)
    else:
        state = _updated(live.recommender, state, fresh)
    kept = max(limits.KEPT_EVENTS, most or 0)
    return _User(state, events[-kept:], ids[-limits.KEPT_EVENT_IDS :], user.replayed)


def _updated(recommender: Recommender, state: UserState, fresh: Sequence[UserEvent]) -> UserState:
    try:
        for event in fresh:
            state = recommender.update(state, event.item, event.time)
    except ValueError as error:
        raise RefusedError(422, "event_refused", str(error)) from error
    return state


def computed(recommender: Recommender, domain: str, events: Sequence[ItemEvent]) -> UserState:
    """The state after a user's last events; a model with a window reads as many as it knows.

    Events of items that this bundle does not have say nothing to it, but stay in the record: while
    bundles are changed, replicas with the old and the new one take turns.
    """
    catalogue = recommender.catalogue(domain)
    events = [event for event in events if event[0] in catalogue]
    times = [time for _, time in events if time is not None]
    try:
        return recommender.state_of(
            domain, [item for item, _ in events], times if len(times) == len(events) else None
        )
    except ValueError as error:
        raise RefusedError(422, "history_refused", str(error)) from error


def _record(live: Live, user: _User) -> KeptUser:
    return KeptUser(
        user.state.schema,
        live.followed,
        user.state.to_bytes(),
        user.events,
        user.event_ids,
    )
