"""Recommendations from a bundle: users followed event by event, the whole catalogue ranked.

Shapes: n users, T events one after another, w width of a score's vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from item_llm.prompts import normalise_text
from pipeline.recommender.bundle import Bundle, Models
from pipeline.recommender.catalogue import Catalogue
from pipeline.recommender.domain_model import DomainModel
from pipeline.recommender.text_encoder import BundleTextEncoder
from pipeline.recommender.users import SeenItems, UserState
from user_model.streamed_users import StreamedUsers

if TYPE_CHECKING:
    from pipeline.recommender.item_index import ItemIndex

_BLOCK_EVENTS = 32_768  # of whole histories that are read in one pass, as in evaluation

History = Sequence[str]


@dataclass(frozen=True, eq=False)
class Recommendation:
    """What one user is recommended, best first.

    Attributes:
        item_ids: k, or fewer where the user has seen nearly all items.
        scores: float32 [k]: cosines where the model's vectors have length 1, plus the text
            channel's part where it has one.
    """

    item_ids: list[str]
    scores: NDArray[np.float32]


class Recommender:
    """A bundle in use. Safe to be used by several threads at once.

    Made by `load`; `domains` are the names of its domains, `window` the number of events that the
    model was trained with (None: all of a history), `version` the hash of the bundle's contents.
    """

    def __init__(self, bundle: Bundle, *, stream_past_window: bool = False) -> None:
        self.bundle = bundle
        self.window = bundle.config.window
        self._most_events = None if stream_past_window else self.window
        models: Models = {}
        self._domains = {name: DomainModel(bundle, name, models) for name in bundle.config.domains}
        self._encoder = BundleTextEncoder(bundle)

    @classmethod
    def load(cls, path: str | Path, *, stream_past_window: bool = False) -> Self:
        """Open a bundle, after comparing the checksum of every file.

        Args:
            path: the folder that `python -m pipeline.export` wrote, or its s3:// address, of which
                this machine keeps a copy.
            stream_past_window: let users go on past the events that the model was trained with.
                Their state takes no more room, but positions and sums are such as training never
                saw; False: `update` raises there, and longer histories are cut to the latest, as
                evaluation cuts them.

        Raises:
            ValueError: no bundle, one of another format, or a damaged one.
        """
        return cls(Bundle.open(path), stream_past_window=stream_past_window)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in the order of the run."""
        return tuple(self._domains)

    @property
    def version(self) -> str:
        """Hash of the bundle's contents, 12 hexadecimal digits."""
        return self.bundle.version

    def catalogue(self, domain: str) -> Catalogue:
        """The items of a domain; raises ValueError where there is no such domain."""
        return self._domain(domain).catalogue

    def start(self, domain: str | None = None, n_users: int = 1) -> UserState:
        """The state of users without events."""
        name = self._named(domain)
        model = self._domain(name)
        return UserState(name, model.schema, model.stream.start(n_users), SeenItems.none(n_users))

    def update(self, state: UserState, item_id: str, time: int | None = None) -> UserState:
        """The state of one user after one more event, at a cost that does not depend on the past.

        Args:
            state: of one user; it stays as it is.
            item_id: of the event.
            time: unix seconds of it, for a model that reads times (user_model.time_gaps).

        Raises:
            ValueError: an unknown item, a state of several users or of another bundle, no time
                where the model reads times, or more events than the model was trained with.
        """
        return self.update_many(state, [item_id], None if time is None else [time])

    def update_many(
        self, states: UserState, item_ids: Sequence[str], times: Sequence[int] | None = None
    ) -> UserState:
        """The state of n users after one more event of each.

        Args:
            states: of n users of one domain; see `UserState.join`.
            item_ids: n, one a user.
            times: n, unix seconds, for a model that reads times.

        Raises:
            ValueError: as `update` does, or another number of items than of users.
        """
        domain = self._of(states)
        if len(item_ids) != states.n_users:
            raise ValueError(
                f"item_ids: got {len(item_ids)} for {states.n_users} users; give one a user"
            )
        rows = domain.catalogue.rows(item_ids)
        if self._most_events is not None and int(states.events.max(initial=0)) >= self._most_events:
            raise ValueError(
                f"update: the user has had {self._most_events} events, all that the model was "
                "trained with (split.max_history); make the state again from the latest events "
                "(state_of), train with split.max_history: null, or load with "
                "stream_past_window=True"
            )
        inputs, texts = domain.item_rows(rows)
        model = domain.stream.step(states.model, inputs, texts, _times(times, len(rows)))
        return UserState(states.domain, states.schema, model, states.seen.after(rows))

    def state_of(
        self,
        domain: str | None,
        item_ids: History,
        times: Sequence[int] | None = None,
    ) -> UserState:
        """The state of one user after a whole history: as after an update for each event.

        Where the model has a window, it reads the latest events; all of them count as seen.

        Args:
            domain: may be None where the bundle has one.
            item_ids: of the events, oldest first; may be empty.
            times: unix seconds of them, for a model that reads times.

        Raises:
            ValueError: unknown items, or times that do not fit.
        """
        return self.states_of(domain, [item_ids], None if times is None else [times])

    def states_of(
        self,
        domain: str | None,
        histories: Sequence[History],
        times: Sequence[Sequence[int]] | None = None,
    ) -> UserState:
        """The same for n users at once."""
        name = self._named(domain)
        model = self._domain(name)
        rows = [model.catalogue.rows(history) for history in histories]
        if times is not None and [len(some) for some in times] != [len(some) for some in rows]:
            raise ValueError("times: got another number than of events; give one for each")
        when = [np.asarray(some, dtype=np.int64) for some in times] if times is not None else None
        parts = [
            model.read(rows[some], None if when is None else when[some], self._most_events)
            for some in _blocks([len(history) for history in rows])
        ]
        if not parts:
            return self.start(name, 0)
        tensors = [part.to_dict() for part in parts]
        joined = {key: torch.cat([part[key] for part in tensors]) for key in tensors[0]}
        return UserState(name, model.schema, StreamedUsers.from_dict(joined), SeenItems.of(rows))

    def recommend(
        self,
        history_or_state: History | UserState,
        k: int = 10,
        *,
        domain: str | None = None,
        exclude_seen: bool = True,
        times: Sequence[int] | None = None,
    ) -> Recommendation:
        """The k items that fit one user best.

        Args:
            history_or_state: item ids, oldest first, or a state of one user.
            k: items wanted.
            domain: of a history; may be None where the bundle has one.
            exclude_seen: leave out what the user had.
            times: of a history's events, for a model that reads times.

        Raises:
            ValueError: unknown items, a user without events, a state of several users.
        """
        if isinstance(history_or_state, UserState):
            users: Any = history_or_state
            if users.n_users != 1:
                raise ValueError(f"state: got {users.n_users} users, expected 1; recommend_many")
        else:
            users = self.state_of(domain, history_or_state, times)
        return self.recommend_many(users, k, domain=domain, exclude_seen=exclude_seen)[0]

    def recommend_many(
        self,
        users: UserState | Sequence[History | UserState],
        k: int = 10,
        *,
        domain: str | None = None,
        exclude_seen: bool = True,
        index: ItemIndex | None = None,
    ) -> list[Recommendation]:
        """The same for many users of one domain, who share the pass over the catalogue.

        Args:
            users: a state of n users, or histories and states in any mix.
            k: as in `recommend`.
            domain: as in `recommend`.
            exclude_seen: as in `recommend`.
            index: of the domain, which finds most of the best items; None: all are ranked.

        Raises:
            ValueError: as `recommend` does, or an index of another domain.
        """
        state = users if isinstance(users, UserState) else self._gathered(users, domain)
        model = self._of(state)
        if domain not in (None, state.domain):
            raise ValueError(f"domain: got {domain!r}, and a state of {state.domain!r}")
        if index is not None and index.domain != state.domain:
            raise ValueError(f"index: got one of {index.domain}, and users of {state.domain}")
        best = model.best(state, k, exclude_seen=exclude_seen, index=index)
        return [
            Recommendation(model.catalogue.ids(rows[:count]), scores[:count])
            for rows, scores, count in zip(best.rows, best.scores, best.counts, strict=True)
        ]

    def encode_text(self, text: str) -> NDArray[np.float32]:
        """A text as the item encoder reads it, float32 [d_text], of length 1.

        The encoder is loaded on first use: seconds, and its memory.

        Raises:
            ValueError: the model knows ids alone, or the encoder's base is absent here or is
                another one than the bundle was made with.
        """
        return self._encoder.encode(text)

    def add_item(self, domain: str | None, item_id: str, text: str) -> int:
        """Add an item that training has never seen, known by its text; returns its row.

        It is there at once for all threads, and as long as this object lives.

        Raises:
            ValueError: the id is taken, the text empty, or the model knows ids alone.
        """
        name = self._named(domain)
        model = self._domain(name)
        if model.new_items is None:
            raise ValueError(
                f"add_item: {self.bundle.config.model} knows ids alone, and a new item is known by "
                "its text; export a model that reads texts, such as hydra_joint"
            )
        text = normalise_text(text)
        if not item_id or not text:
            raise ValueError(f"add_item: got id {item_id!r} and text {text!r}; give both")
        model.catalogue.refuse_known(item_id)  # before the work of encoding
        encoded = torch.from_numpy(self.encode_text(text))[None]
        with torch.inference_mode():
            inputs = model.new_items.inputs(encoded)
            vector = model.stream.item_vectors(inputs, model.new_items.columns(encoded))
        return model.catalogue.add(item_id, text, inputs[0].numpy(), vector[0].numpy())

    def _gathered(self, users: Sequence[History | UserState], domain: str | None) -> UserState:
        """One state of all users, in their order; all histories are read at once."""
        states = [user for user in users if isinstance(user, UserState)]
        histories = [user for user in users if not isinstance(user, UserState)]
        if histories or not states:
            name = domain or (states[0].domain if states else None)
            states = [self.states_of(name, histories), *states]
        joined = UserState.join(states)
        is_state = [isinstance(user, UserState) for user in users]
        if len(set(is_state)) < 2:
            return joined
        place = np.argsort(np.argsort(is_state, kind="stable"), kind="stable")
        return joined.select(place.tolist())

    def _of(self, state: UserState) -> DomainModel:
        model = self._domain(state.domain)
        if state.schema != model.schema:
            raise ValueError(
                f"state of {state.domain}: got one of schema {state.schema}, this bundle's is "
                f"{model.schema}; make the state again from the user's events (state_of)"
            )
        return model

    def _domain(self, name: str) -> DomainModel:
        if name not in self._domains:
            raise ValueError(f"domain: got {name!r}, expected one of {', '.join(self._domains)}")
        return self._domains[name]

    def _named(self, domain: str | None) -> str:
        if domain is not None:
            self._domain(domain)
            return domain
        if len(self._domains) > 1:
            raise ValueError(f"domain: got none, expected one of {', '.join(self._domains)}")
        return self.domains[0]


def _times(times: Sequence[int] | None, count: int) -> torch.Tensor | None:
    if times is None:
        return None
    if len(times) != count:
        raise ValueError(f"times: got {len(times)} for {count} events; give one for each")
    return torch.tensor(list(times), dtype=torch.int64)


def _blocks(lengths: Sequence[int]) -> list[slice]:
    """Histories that are read in one pass: whole ones of about _BLOCK_EVENTS events."""
    block_n = np.cumsum([0, *lengths])[:-1] // _BLOCK_EVENTS
    starts = np.flatnonzero(np.diff(block_n, prepend=-1))
    return [
        slice(int(first), int(end))
        for first, end in zip(starts, [*starts[1:], len(lengths)], strict=True)
    ]
