"""The bundle that answers now, with the items added to it; another one takes its place at once."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from item_llm.prompts import normalise_text
from pipeline.recommender import Recommender
from pipeline.serving import limits
from pipeline.serving.refused import RefusedError
from pipeline.serving.store import NewItem, Store

_LOG = logging.getLogger(__name__)
_TRIES = 100
# A replica looks at the list of added items if it has not done so within this time, and whoever
# adds one answers no sooner than this time later: what starts after the answer sees the item.
LOOK_SECONDS = 0.05


class Wanted(NamedTuple):
    """A bundle's folder, and the version that is expected in it."""

    path: str
    version: str


@dataclass
class Live:
    """A loaded bundle and how far it has followed the store's list of added items.

    All replicas follow the same list in the same order, so that an item has the same row in each.

    Attributes:
        recommender: the loaded bundle.
        most_events: that a state may have read; None: any number.
        followed: items of the list that were looked at.
    """

    recommender: Recommender
    most_events: int | None = None
    followed: int = 0
    _looked: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep_up(self, store: Store) -> None:
        """Follow, unless that was done just now: called before every answer."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self.follow(store)

    def follow(self, store: Store) -> None:
        """Add what other replicas have added."""
        looked = time.monotonic()
        if store.items_since(self.followed):
            with self._lock:
                for item in store.items_since(self.followed):
                    if item.domain in self.recommender.domains and not self.knows(item):
                        self.recommender.add_item(item.domain, item.item, item.text)
                    self.followed += 1
        self._looked = looked

    def add(self, item: NewItem, store: Store) -> bool:
        """Add an item here and on the list that all replicas follow.

        Returns:
            False where the same item was there already.

        Raises:
            RefusedError: the bundle knows ids alone, the id has another text, or the list is full.
        """
        if not self.recommender.bundle.config.domains[item.domain].takes_new_items:
            raise RefusedError(
                409,
                "ids_alone",
                f"the model of {item.domain!r} knows items by their ids alone, so that a text says "
                "nothing to it",
            )
        for _ in range(_TRIES):
            self.follow(store)
            if self.knows(item):
                self._check_same(item)
                time.sleep(LOOK_SECONDS)  # it may have been added just now, elsewhere
                return False
            if self.followed >= limits.ADDED_ITEMS:
                raise RefusedError(
                    409,
                    "too_many_items",
                    f"{limits.ADDED_ITEMS} items were added by text, which is all that may be; "
                    "export a bundle that has them",
                )
            # Before it stands on the list: what cannot be encoded must not reach the others.
            self._check_encodable(item.text)
            if store.append_item(item, self.followed):
                self.follow(store)
                time.sleep(LOOK_SECONDS)
                return True
        raise RefusedError(503, "busy", "the list of added items changes all the time; try again")

    def knows(self, item: NewItem) -> bool:
        """Whether the domain has an item of this id."""
        return item.item in self.recommender.catalogue(item.domain)

    def _check_same(self, item: NewItem) -> None:
        catalogue = self.recommender.catalogue(item.domain)
        if catalogue.texts(catalogue.row(item.item)) != normalise_text(item.text):
            raise RefusedError(
                409,
                "other_text",
                f"item {item.item!r} of {item.domain!r} is there with another text, and texts "
                "do not change; give it a new id",
            )

    def _check_encodable(self, text: str) -> None:
        if not normalise_text(text):
            raise RefusedError(422, "no_text", "text: got blanks alone; say what the item is")
        try:
            self.recommender.encode_text(text)
        except ValueError as error:  # its message names folders of this machine
            _LOG.exception("the bundle's text encoder is not there")
            raise RefusedError(
                409, "no_encoder", "texts cannot be encoded here; the server's log says why"
            ) from error


def load(path: str, version: str | None, store: Store, *, stream_past_window: bool) -> Live:
    """Load a bundle, add the added items, and compute an answer of each domain to warm it up.

    Raises:
        ValueError: it is no whole bundle, or not of this version.
    """
    recommender = Recommender.load(path, stream_past_window=stream_past_window)
    if version not in (None, recommender.version):
        raise ValueError(
            f"bundle {path}: got version {recommender.version}, expected {version}; it was changed "
            "after it was named: name it again"
        )
    live = Live(recommender, None if stream_past_window else recommender.window)
    live.follow(store)
    for domain in recommender.domains:
        recommender.recommend([recommender.catalogue(domain).id(0)], 1, domain=domain)
    return live
