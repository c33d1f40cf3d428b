"""The `steam` format: reviews of games and the games, an object a line: Python dicts or JSON.

reviews  username (and for some user_id), product_id, date (a day); the public file has no ratings
games    id, app_name, title, genres, tags, ...

Days are all the times there are, so a user's reviews of one day are ordered by a hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.sources.events import event_parts, item_parts, text_columns
from pipeline.sources.format import Format, Guess, Sight
from pipeline.sources.json_lines import JSON_ENDINGS, first_objects, json_pieces, object_decoder
from pipeline.sources.options import SourceOptions, existing_file, given_paths
from pipeline.sources.tables import RawTables

_TEXTS = ("genres", "tags")


class SteamConfig(SourceOptions):
    """Reviews of games, and the games."""

    format: Literal["steam"] = Field("steam", description="this format's name")
    reviews: str = Field(
        description="file of reviews, an object a line (.gz too): absolute, or relative to the "
        "data root (HYDRAREC_DATA)"
    )
    games: str | None = Field(
        None, description="file of games, an object a line (.gz too); null: no texts"
    )
    user: Literal["username", "user_id"] = Field(
        "username", description="field of the reviews that tells the user"
    )
    text: tuple[str, ...] = Field(
        ("app_name", *_TEXTS),
        min_length=1,
        description="fields of the games that make an item's text, in this order",
    )

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """The reviews and, if there is one, the file of games, absolute."""
        return given_paths(data_root, self.reviews, self.games)

    def describe(self) -> str:
        """The format and the file's name."""
        return f"steam {Path(self.reviews).name}"


def read_steam(config: SteamConfig, data_root: Path) -> RawTables:
    """Read reviews as interactions and games as items.

    Raises:
        ValueError: a file is absent; while reading, it is damaged as a whole.
    """
    files = [existing_file(file, config.describe()) for file in config.files(data_root)]
    decode = object_decoder()
    events = {"user_id": config.user, "item_id": "product_id", "timestamp": "date"}
    texts = text_columns(config.text)
    games = (json_pieces(file, {"item_id": "id"} | texts, decode=decode) for file in files[1:])
    return RawTables(
        order="time",
        interactions=event_parts(json_pieces(files[0], events, decode=decode), "iso"),
        items=item_parts(next(games), list(texts)) if files[1:] else (),
    )


def _recognise(sight: Sight) -> Guess | None:
    named = [file for file in sight.files() if file.name.endswith(JSON_ENDINGS)]
    known = {file: first_objects(file) for file in named}
    reviews = [file for file, rows in known.items() if _user_field(rows)]
    if len(reviews) != 1:
        return None
    fields: dict[str, Any] = {"reviews": str(reviews[0])}
    if (user := _user_field(known[reviews[0]])) != "username":
        fields["user"] = user
    games = [file for file, rows in known.items() if _title_field(rows)]
    if len(games) == 1:
        fields["games"] = str(games[0])
        if (title := _title_field(known[games[0]])) != "app_name":
            fields["text"] = [title, *_TEXTS]
    return Guess(fields, f"{reviews[0].name} has the fields of Steam's reviews: product_id, date")


def _user_field(rows: list[dict[str, Any]]) -> str | None:
    """The field that tells the user, if these are reviews; some lack the user's number."""
    if not rows or not all({"product_id", "date"} <= row.keys() for row in rows):
        return None
    return next(
        (name for name in ("username", "user_id") if all(name in row for row in rows)), None
    )


def _title_field(rows: list[dict[str, Any]]) -> str | None:
    """The field with the title, if these are games; some lack one, so it is that most have."""
    if not rows or not all("id" in row and "date" not in row for row in rows):
        return None
    counts = {name: sum(name in row for row in rows) for name in ("app_name", "title")}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None


FORMAT = Format(
    config=SteamConfig,
    read=read_steam,
    summary="Steam's reviews and games, a Python dict or a JSON object a line",
    recognise=_recognise,
)
