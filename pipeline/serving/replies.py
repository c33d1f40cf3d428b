"""What the server sends back; /openapi.json is made of these."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RecommendedItem(_Reply):
    """One item of an answer, best first."""

    item: str
    score: float
    text: str


class Recommended(_Reply):
    """The answer of POST /recommend."""

    bundle: str = Field(description="version of the bundle that answered")
    domain: str
    items: list[RecommendedItem]


class EventsKept(_Reply):
    """The answer of POST /events: how many changed a state, how many were there already."""

    bundle: str
    applied: int
    duplicates: int


class ItemKept(_Reply):
    """The answer of POST /items; `added` is false where the same item was there already."""

    bundle: str
    domain: str
    item: str
    added: bool


class FoundItem(_Reply):
    """An item whose text fits what was searched for."""

    item: str
    text: str


class Found(_Reply):
    """The answer of GET /search."""

    domain: str
    items: list[FoundItem]


class Health(_Reply):
    """The answer of GET /health."""

    status: str
    bundle: str
    domains: dict[str, int] = Field(description="items of each domain, those added included")


class Problem(_Reply):
    """One thing that is wrong with a request, and where: `body.events.3.item`."""

    at: str
    message: str


class Mistake(_Reply):
    """What is wrong: a code for programs, a sentence for people."""

    code: str
    message: str
    problems: list[Problem] = []


class Failed(_Reply):
    """The one shape of every answer that is not a success."""

    error: Mistake
