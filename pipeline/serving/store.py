"""What outlives a request: a value for each user, and the list of items that were added by text.

Values are opaque bytes. They are replaced only by who has seen the value before, so that of two
writers at once one tries again, and nothing is lost.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

NOTHING = b""  # the stamp of a key that is not there


class Kept(NamedTuple):
    """A value, and the stamp that its write got; no two writes of a key have the same."""

    value: bytes
    stamp: bytes


class NewItem(NamedTuple):
    """An item that was added by its text."""

    domain: str
    item: str
    text: str


class Counts(NamedTuple):
    """What a store holds, and what it let go since it was opened; None: it does not know."""

    states: int
    state_bytes: int | None
    evicted: int | None
    expired: int | None


class Store(Protocol):
    """Where states and added items are kept. Safe from several threads."""

    def read(self, key: str) -> Kept | None:
        """The value of a key, which thereby counts as used; None: it is not there."""

    def replace(self, key: str, value: bytes, stamp: bytes) -> bool:
        """Write a value if the key's stamp is still `stamp` (`NOTHING`: is not there).

        Returns:
            False where another writer came first; nothing is written then.
        """

    def items_since(self, count: int) -> list[NewItem]:
        """All added items after the first `count`, in the order in which they were added."""

    def append_item(self, item: NewItem, count: int) -> bool:
        """Append an item if there are still `count`; False where another came first."""

    def counts(self) -> Counts:
        """What is held, for the metrics."""
