"""The record that a store keeps of one user in one domain, as safetensors bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import safetensors.numpy

ItemEvent = tuple[str, int | None]


@dataclass(frozen=True)
class KeptUser:
    """A user's state, and what another bundle needs to compute its own.

    Attributes:
        schema: of the state, `UserState.schema`: which weights and items it belongs to.
        added: how many items had been added by text; the state may hold their rows.
        state: `UserState.to_bytes()`.
        events: the last events, oldest first: item id and unix seconds.
        event_ids: of the last events that had one.
    """

    schema: str
    added: int
    state: bytes
    events: tuple[ItemEvent, ...]
    event_ids: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """Safetensors: the state's bytes, and JSON of the rest."""
        rest = json.dumps([self.schema, self.added, self.events, self.event_ids])
        return safetensors.numpy.save({"state": _bytes(self.state), "rest": _bytes(rest.encode())})

    @classmethod
    def from_bytes(cls, value: bytes) -> KeptUser:
        """Read what `to_bytes` has written.

        Raises:
            ValueError: these are no such bytes.
        """
        try:
            parts = safetensors.numpy.load(value)
            schema, added, events, ids = json.loads(parts["rest"].tobytes())
            pairs = tuple((str(item), time) for item, time in events)
            return cls(schema, added, parts["state"].tobytes(), pairs, tuple(ids))
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"kept user: got {len(value)} bytes that are no record of a user ({error}); "
                "another program writes into this store: use a database of its own"
            ) from error


def key_of(domain: str, user: str) -> str:
    """The name under which a user is kept: of bounded length, and no id in clear.

    The domain's length stands in front, so that no two pairs run together.
    """
    return hashlib.sha256(f"{len(domain)}:{domain}{user}".encode()).hexdigest()


def _bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)
