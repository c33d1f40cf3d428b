"""What a server does, without HTTP: answers, events, new items, and a change of bundles."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.recommender import Recommendation, Recommender, UserState
from pipeline.serving.desk import Report
from pipeline.serving.live import Live, Wanted, load
from pipeline.serving.refused import RefusedError
from pipeline.serving.requests import Event, HistoryAsked, TimedItem, UserAsked
from pipeline.serving.server_metrics import ReplicaMetrics, exposition
from pipeline.serving.store import NewItem, Store
from pipeline.serving.users import Applied, UserEvent, Users, computed

_LOG = logging.getLogger(__name__)


class MeetingPoint(Protocol):
    """What a replica needs of the `Desk`, wherever that is."""

    def wanted(self) -> Wanted:
        """The bundle that replicas are to answer with."""

    def report(self, report: Report) -> Wanted:
        """Say how it stands; learn which bundle is wanted."""

    def reports(self) -> list[Report]:
        """The last words of all replicas."""


class Service:
    """One replica. Safe from several threads.

    Args:
        desk: says which bundle is wanted.
        store: states and added items, shared by all replicas.
        stream_past_window: as of `Recommender.load`.

    Raises:
        ValueError: the wanted bundle cannot be loaded.
    """

    def __init__(
        self, desk: MeetingPoint, store: Store, *, stream_past_window: bool = False
    ) -> None:
        self.metrics = ReplicaMetrics()
        self._name = secrets.token_hex(4)
        self._desk, self._store, self._users = desk, store, Users(store)
        self._stream_past_window = stream_past_window
        self._tried, self._refused = desk.wanted(), ""
        self._live = self._loaded(self._tried)
        self.metrics.answers_with(self._live.recommender.version)

    def live(self) -> Live:
        """The bundle that answers now, with every item that any replica has added.

        A request takes it once and keeps it: bundles may change while it is answered.
        """
        live = self._live
        live.keep_up(self._store)
        return live

    def recommend(self, asked: HistoryAsked | UserAsked, live: Live) -> Recommendation:
        """The best items for a history or a known user.

        Raises:
            RefusedError: the domain, an item or the user is not known, or times are missing.
        """
        recommender = live.recommender
        _check_domain(recommender, asked.domain)
        if isinstance(asked, UserAsked):
            state, replayed = self._users.state(live, asked.domain, asked.user)
            self.metrics.replayed(int(replayed))
        else:
            state = _state_of(recommender, asked)
        if not int(state.events[0]):
            raise RefusedError(
                404, "unknown_user", "the bundle has none of the items that this user chose"
            )
        return recommender.recommend(state, asked.k, exclude_seen=asked.exclude_seen)

    def append(self, domain: str, events: Sequence[Event], live: Live) -> Applied:
        """Let events change the states of their users; nothing is done where one is refused.

        Raises:
            RefusedError: the domain or an item is not known.
        """
        _check_domain(live.recommender, domain)
        _check_items(live.recommender, domain, [event.item for event in events])
        of_user: dict[str, list[UserEvent]] = {}
        for event in events:
            row = UserEvent(event.item, event.time, event.event_id)
            of_user.setdefault(event.user, []).append(row)
        done = [self._users.append(live, domain, user, rows) for user, rows in of_user.items()]
        total = Applied(*map(sum, zip(*done, strict=True)))
        self.metrics.received(total.applied, total.duplicates)
        self.metrics.replayed(total.replayed)
        return total

    def add_item(self, item: NewItem, live: Live) -> bool:
        """Add an item by its text, for all replicas; False where it was there already.

        Raises:
            RefusedError: the domain is not known, or the item is there with another text.
        """
        _check_domain(live.recommender, item.domain)
        return live.add(item, self._store)

    def search(self, domain: str, text: str, k: int, live: Live) -> list[tuple[str, str]]:
        """Ids and texts of the items that fit a text best.

        Raises:
            RefusedError: the domain is not known.
        """
        _check_domain(live.recommender, domain)
        catalogue = live.recommender.catalogue(domain)
        return [(catalogue.id(row), catalogue.texts(row)) for row in catalogue.search(text, k)]

    def exposition(self) -> bytes:
        """The metrics of all replicas, in Prometheus's text format.

        This replica's are first sent to the desk: what is read there never goes back.
        """
        self._desk.report(self._report())
        of_replicas = {report.replica: report.families for report in self._desk.reports()}
        return exposition(of_replicas, self._store.counts())

    def beat(self) -> None:
        """Say how this replica stands, and take over the bundle that is wanted, if it is new.

        The new one is loaded beside the old one, which answers until then; where it cannot be
        loaded the old one stays, and the desk is told why.
        """
        wanted = self._desk.report(self._report())
        if wanted == self._tried:
            return
        try:
            self._live, refused = self._loaded(wanted), ""
            self.metrics.answers_with(self._live.recommender.version, swapped=True)
        except Exception as error:
            _LOG.exception("bundle %s is not taken over", wanted.path)
            refused = str(error)
        self._tried, self._refused = wanted, refused
        self._desk.report(self._report())

    def _loaded(self, wanted: Wanted) -> Live:
        return load(
            wanted.path,
            wanted.version,
            self._store,
            stream_past_window=self._stream_past_window,
        )

    def _report(self) -> Report:
        version = self._live.recommender.version
        families = self.metrics.families()
        tried = self._tried.version
        return Report(self._name, os.getpid(), version, tried, self._refused, families)


def keep_beating(service: Service, seconds: float, stopped: Callable[[], bool]) -> None:
    """Beat until `stopped`; a desk that is away for a while changes nothing for clients."""
    while not stopped():
        try:
            service.beat()
        except Exception:
            _LOG.exception("the desk does not answer")
        time.sleep(seconds)


def _state_of(recommender: Recommender, asked: HistoryAsked) -> UserState:
    events = [
        (row.item, row.time) if isinstance(row, TimedItem) else (row, None) for row in asked.history
    ]
    _check_items(recommender, asked.domain, [item for item, _ in events])
    if 0 < (timed := sum(time is not None for _, time in events)) < len(events):
        raise RefusedError(
            422,
            "times_missing",
            f"history: got {timed} times for {len(events)} items, expected one for each or none",
        )
    return computed(recommender, asked.domain, events)


def _check_domain(recommender: Recommender, domain: str) -> None:
    if domain not in recommender.domains:
        raise RefusedError(
            404,
            "unknown_domain",
            f"domain: got {domain!r}, expected one of {', '.join(recommender.domains)}",
        )


def _check_items(recommender: Recommender, domain: str, items: Sequence[str]) -> None:
    catalogue = recommender.catalogue(domain)
    if unknown := sorted({item for item in items if item not in catalogue}):
        named = ", ".join(map(repr, unknown[:5])) + (" ..." if unknown[5:] else "")
        raise RefusedError(
            404,
            "unknown_item",
            f"{len(unknown)} items that {domain!r} does not have: {named}; add them by POST "
            "/items, or leave them out",
        )
