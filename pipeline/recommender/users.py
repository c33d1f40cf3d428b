"""What is kept of users between events, and its bytes for a state store.

The seen items of a user are rows of the catalogue, oldest first, the latest SEEN_ITEMS of them:
together with the model's state everything is of bounded size, however long the history.

Shapes: n users.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from pipeline.recommender.seen_kernels import append_each
from user_model.streamed_users import StreamedUsers

if TYPE_CHECKING:
    from pipeline.recommender.recommender import Recommender

SEEN_ITEMS = 4096  # events whose items are kept from being recommended again; our choice [D]
_FORMAT = 1
_SEEN, _OFFSETS = "seen", "seen_offsets"
StateType = Literal["float32", "float16"]


@dataclass(frozen=True, eq=False)
class SeenItems:
    """Rows of the items that n users had, oldest first, the latest SEEN_ITEMS of each user.

    Attributes:
        rows: int32 [offsets[n]], user by user.
        offsets: int64 [n + 1].
    """

    rows: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def none(cls, n_users: int) -> Self:
        """Of users that had nothing."""
        return cls(np.zeros(0, dtype=np.int32), np.zeros(n_users + 1, dtype=np.int64))

    @classmethod
    def of(cls, histories: Sequence[NDArray[np.int64]]) -> Self:
        """Of users with these rows of items."""
        kept = [history[-SEEN_ITEMS:].astype(np.int32) for history in histories]
        offsets = np.cumsum([0, *map(len, kept)], dtype=np.int64)
        return cls(np.concatenate([np.zeros(0, dtype=np.int32), *kept]), offsets)

    def after(self, rows: NDArray[np.int64]) -> Self:
        """The same after one more item of each user, int64 [n]."""
        return type(self)(*append_each(self.rows, self.offsets, rows, SEEN_ITEMS))

    def user(self, number: int) -> NDArray[np.int64]:
        """Rows of one user's items, int64."""
        return self.rows[self.offsets[number] : self.offsets[number + 1]].astype(np.int64)

    def users(self) -> list[NDArray[np.int64]]:
        """Rows of each user's items, int64."""
        return [self.user(number) for number in range(len(self.offsets) - 1)]


@dataclass(frozen=True, eq=False)
class UserState:
    """What is known of n users of one domain; made by a Recommender, never changed.

    Attributes:
        domain: its name.
        schema: hash of the model and the items that the state has a meaning for.
        model: the model's state of the users.
        seen: the items that they had.
    """

    domain: str
    schema: str
    model: StreamedUsers
    seen: SeenItems

    @property
    def n_users(self) -> int:
        """Users whose state it is."""
        return self.model.n_users

    @property
    def events(self) -> NDArray[np.int64]:
        """Events of each user that the model has read, int64 [n]."""
        return self.model.events.numpy()

    def select(self, users: Sequence[int]) -> UserState:
        """The state of some of the users, in this order."""
        seen = SeenItems.of([self.seen.user(number) for number in users])
        chosen = self.model.select(torch.tensor(list(users), dtype=torch.int64))
        return UserState(self.domain, self.schema, chosen, seen)

    def split(self) -> list[UserState]:
        """The state of each user alone."""
        return [self.select([number]) for number in range(self.n_users)]

    @classmethod
    def join(cls, states: Sequence[UserState]) -> UserState:
        """The users of several states as one, in order.

        Raises:
            ValueError: there is none, or they are of several domains or bundles.
        """
        if not states:
            raise ValueError("states: got none, expected one or more of a domain")
        if len(found := {(state.domain, state.schema) for state in states}) > 1:
            names = ", ".join(sorted(f"{domain} ({schema})" for domain, schema in found))
            raise ValueError(f"states: got those of {names}; join states of one domain and model")
        if len(states) == 1:
            return states[0]
        parts = [state.model.to_dict() for state in states]
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        seen = SeenItems.of([rows for state in states for rows in state.seen.users()])
        first = states[0]
        return cls(first.domain, first.schema, StreamedUsers.from_dict(joined), seen)

    def to_bytes(self, dtype: StateType = "float32") -> bytes:
        """The state as safetensors, about half as large in float16.

        Seen items are rows of the catalogue. Those of added items mean something beside the same
        items, added in the same order; rows that a catalogue has not are dropped in reading.
        """
        tensors = self.model.to_dict()
        if dtype == "float16":
            tensors = {name: _halved(name, t, tensors) for name, t in tensors.items()}
        content = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        content[_SEEN] = torch.from_numpy(self.seen.rows.copy())
        content[_OFFSETS] = torch.from_numpy(self.seen.offsets.astype(np.int32))
        facts = {"format": str(_FORMAT), "domain": self.domain, "schema": self.schema}
        return save(content, metadata=facts)

    @classmethod
    def from_bytes(cls, content: bytes, recommender: Recommender) -> UserState:
        """The state that `to_bytes` wrote.

        Raises:
            ValueError: damaged, of another format, or of another bundle's model or items.
        """
        facts = _facts(content)
        if facts.get("format") != str(_FORMAT):
            raise ValueError(
                f"user state: got format {facts.get('format')!r}, expected {_FORMAT}; make the "
                "state again from the user's events (state_of)"
            )
        start = recommender.start(str(facts.get("domain")))
        if facts.get("schema") != start.schema:
            raise ValueError(
                f"user state of {start.domain}: got one of schema {facts.get('schema')}, this "
                f"bundle's is {start.schema}: other weights or other items; make the state again "
                "from the user's events (state_of)"
            )
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise _damaged(str(error)) from error
        seen = _seen(tensors, recommender.catalogue(start.domain).n_items)
        model = _model(tensors, start.model.to_dict())
        if len(seen.offsets) != model.n_users + 1:
            raise _damaged(
                f"{len(seen.offsets) - 1} users have seen items, {model.n_users} a state"
            )
        return cls(start.domain, start.schema, model, seen)


def _halved(name: str, tensor: torch.Tensor, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """A tensor in float16; sums over all events, which may pass its range, as means."""
    if not tensor.is_floating_point():
        return tensor
    if name.endswith(".sums"):
        tensor = tensor / tensors["positions"].clamp_min(1)[:, None]
    return tensor.half()


def _model(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> StreamedUsers:
    """The model's state from stored tensors of either type, checked by an empty one."""
    if tensors.keys() != expected.keys():
        raise _damaged(f"its tensors are {sorted(tensors)}, expected {sorted(expected)}")
    n_users = len(tensors["positions"])
    whole = {}
    for name, want in expected.items():
        got = tensors[name]
        if got.shape != (n_users, *want.shape[1:]) or not bool(torch.isfinite(got).all()):
            raise _damaged(f"{name} is {list(got.shape)}, or not finite")
        if got.dtype == torch.float16 and name.endswith(".sums"):
            got = got.to(want.dtype) * tensors["positions"].clamp_min(1)[:, None]
        if got.dtype not in (want.dtype, torch.float16):
            raise _damaged(f"{name} is {got.dtype}, expected {want.dtype} or float16")
        whole[name] = got.to(want.dtype)
    if bool((tensors["positions"] < 0).any()):
        raise _damaged("a number of events is below 0")
    return StreamedUsers.from_dict(whole)


def _seen(tensors: dict[str, torch.Tensor], n_items: int) -> SeenItems:
    """The seen items, taken out of the stored tensors."""
    try:
        rows = tensors.pop(_SEEN).numpy()
        offsets = tensors.pop(_OFFSETS).numpy().astype(np.int64)
    except KeyError as error:
        raise _damaged(f"no tensor {error}") from error
    whole = rows.ndim == offsets.ndim == 1 and len(offsets) and rows.dtype == np.int32
    if not whole or offsets[0] != 0 or offsets[-1] != len(rows) or (np.diff(offsets) < 0).any():
        raise _damaged("its seen items do not fit their offsets")
    if len(rows) and rows.min() < 0:
        raise _damaged("a seen item is below 0")
    known = rows < n_items
    if known.all():
        return SeenItems(rows, offsets)
    return SeenItems.of([
        rows[first:end][known[first:end]].astype(np.int64)
        for first, end in pairwise(offsets)
    ])  # fmt: skip


def _facts(content: bytes) -> dict[str, Any]:
    """What the header of safetensors says beside its tensors."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        facts = header["__metadata__"]
        if not isinstance(facts, dict):
            raise ValueError("its metadata is no mapping")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(repr(error)) from error
    return facts


def _damaged(why: str) -> ValueError:
    return ValueError(
        f"user state: these bytes are not whole ({why}); make the state again from the user's "
        "events (state_of)"
    )
