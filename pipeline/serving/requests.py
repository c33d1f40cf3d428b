"""What clients send: pydantic models that coerce nothing and refuse fields they do not know."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

from pipeline.serving import limits

Id = Annotated[str, StringConstraints(min_length=1, max_length=limits.ID_CHARS)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=limits.TEXT_CHARS)]


def _whole(value: Any) -> Any:
    """JSON has one kind of number, and 3.0 is an integer of it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The bounds stand before the validator: after it they would be missing in the schema.
Time = Annotated[
    int,
    Field(ge=0, le=limits.LATEST_TIME, description="unix seconds"),
    BeforeValidator(_whole),
]
MostItems = Annotated[
    int, Field(ge=1, le=limits.MOST_ITEMS, description="how many items"), BeforeValidator(_whole)
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Asked(_Strict):
    domain: Id
    k: MostItems = 10
    exclude_seen: bool = Field(True, description="leave out what stands in the history")


class TimedItem(_Strict):
    """An item of a history, and when it was chosen."""

    item: Id
    time: Time


class HistoryAsked(_Asked):
    """Recommendations after a history that stands in the request; nothing is kept."""

    history: list[Id | TimedItem] = Field(
        min_length=1,
        max_length=limits.HISTORY_EVENTS,
        description="oldest first; all with times, or none; a model without a time channel "
        "takes no notice of them",
    )


class UserAsked(_Asked):
    """Recommendations for a user whose events were sent to POST /events."""

    user: Id


BY_HISTORY, BY_USER = "by_history", "by_user"


def _kind(asked: Any) -> str:
    """Which of the two is meant, so that mistakes are told of that one alone."""
    return BY_USER if isinstance(asked, dict) and "user" in asked else BY_HISTORY


Asked = Annotated[
    Annotated[HistoryAsked, Tag(BY_HISTORY)] | Annotated[UserAsked, Tag(BY_USER)],
    Discriminator(_kind),
]


class Event(_Strict):
    """A user has chosen an item."""

    user: Id
    item: Id
    time: Time | None = None
    event_id: Id | None = Field(
        None, description="sent again within the user's last 256 of them, it counts once"
    )


class Events(_Strict):
    """Events of one domain, in the order in which they happened."""

    domain: Id
    events: list[Event] = Field(min_length=1, max_length=limits.BATCH_EVENTS)


class ItemAdded(_Strict):
    """A new item, known by its text alone."""

    domain: Id
    item: Id
    text: Text
