"""The report's examples: users with what was recommended to them, items with their neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.model_names import in_order, label
from pipeline.report_formats import Figure, pointer

_OPEN = 3  # users whose details are open at first
_HIT_WITHIN = 10


@dataclass(frozen=True)
class Item:
    """An item by its title, or by its id where it has no text."""

    title: str
    has_text: bool
    domain: str  # "" where it is the domain of the example
    is_target: bool = False
    is_new: bool = False
    cosine: float | None = None


@dataclass(frozen=True)
class User:
    """One user: what came before, what came next, what was recommended."""

    number: int
    domain: str
    history: Sequence[Item]
    history_events: int
    target: Item
    top: Sequence[Item]
    rank: str
    is_hit: bool
    ranks: Sequence[tuple[str, str]]  # the target's rank under each model
    is_open: bool


@dataclass(frozen=True)
class Users:
    """The example users, and what is to be said of them."""

    model: str
    users: Sequence[User]
    hits: int
    over_all: Figure | None  # HR@10 of the same model over all users


@dataclass(frozen=True)
class Neighbours:
    """One item, and its nearest before and after tuning."""

    domain: str
    asked: Item
    among: int
    of: int
    before: Sequence[Item]
    after: Sequence[Item]


def example_users(metrics: Mapping[str, Any], examples: Mapping[str, Any] | None) -> Users | None:
    """The users of examples.json; None in a run of an older version, or where there are none."""
    found = (examples or {}).get("users") or {}
    if not found.get("users"):
        return None
    model = found["model"]
    users = [_user(number, user, model) for number, user in enumerate(found["users"], 1)]
    hit_rate = metrics["groups"]["all"].get(model, {}).get("hr@10")
    where = pointer("groups", "all", model, "hr@10")
    over_all = None if hit_rate is None else Figure(hit_rate, where, "share")
    return Users(label(model), users, sum(user.is_hit for user in users), over_all)


def item_neighbours(examples: Mapping[str, Any] | None) -> list[Neighbours]:
    """The items of examples.json with their nearest; none where nothing was tuned."""
    found = (examples or {}).get("neighbours") or {}
    return [_neighbours(entry) for entry in found.get("items", ())]


def rank_text(rank: Mapping[str, int]) -> str:
    """A rank as readers see it; equal scores share several.

    >>> rank_text({"best": 3, "ties": 1}), rank_text({"best": 3, "ties": 4})
    ('3', '3–6')
    """
    last = rank["best"] + rank["ties"] - 1
    return f"{rank['best']:,}" if last == rank["best"] else f"{rank['best']:,}\u2013{last:,}"


def _user(number: int, user: Mapping[str, Any], model: str) -> User:
    domain, target = user["domain"], user["target"]
    rank = user["ranks"][model]
    return User(
        number=number,
        domain=domain,
        history=[_item(entry, domain) for entry in user["history"]],
        history_events=user["history_events"],
        target=_item(target, domain),
        top=[
            _item(entry, domain, is_target=entry["item"] == target["item"]) for entry in user["top"]
        ],
        rank=rank_text(rank),
        is_hit=rank["best"] + rank["ties"] - 1 <= _HIT_WITHIN,
        ranks=[(label(m), rank_text(user["ranks"][m])) for m in in_order(user["ranks"])],
        is_open=number <= _OPEN,
    )


def _neighbours(entry: Mapping[str, Any]) -> Neighbours:
    domain = entry["domain"]
    known = {near["item"] for near in entry["before"]}
    return Neighbours(
        domain=domain,
        asked=_item(entry, domain),
        among=entry["among"],
        of=entry["of"],
        before=[_item(near, domain) for near in entry["before"]],
        after=[_item(near, domain, is_new=near["item"] not in known) for near in entry["after"]],
    )


def _item(
    entry: Mapping[str, Any], domain: str, *, is_target: bool = False, is_new: bool = False
) -> Item:
    return Item(
        title=entry["text"] or entry["item"],
        has_text=bool(entry["text"]),
        domain="" if entry["domain"] == domain else entry["domain"],
        is_target=is_target,
        is_new=is_new,
        cosine=entry.get("cosine"),
    )
