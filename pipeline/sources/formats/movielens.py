"""The `movielens` format: a folder with ratings and movies, as .dat (1M, 10M) or .csv.

ratings.dat  UserID::MovieID::Rating::Timestamp       ratings.csv  userId,movieId,rating,timestamp
movies.dat   MovieID::Title::Genres, in ISO 8859-1    movies.csv   movieId,title,genres
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.sources.delimited import CSV, Layout, delimited_pieces
from pipeline.sources.events import event_parts, item_parts, rating_column, text_columns
from pipeline.sources.format import Format, Guess, Sight
from pipeline.sources.options import MinRating, SourceOptions, existing_file
from pipeline.sources.tables import RawTables
from pipeline.storage.local_copy import on_this_machine

Kind = Literal["dat", "csv"]

_RATING_NAMES = ("userId", "movieId", "rating", "timestamp")
_MOVIE_NAMES = ("movieId", "title", "genres")
_RATINGS = {"dat": Layout("::", header=_RATING_NAMES), "csv": CSV}
_MOVIES = {"dat": Layout("::", header=_MOVIE_NAMES, encoding="latin-1"), "csv": CSV}


class MovieLensConfig(SourceOptions):
    """A MovieLens data set as it is unpacked."""

    format: Literal["movielens"] = Field("movielens", description="this format's name")
    path: str = Field(
        description="folder with ratings.dat and movies.dat, or ratings.csv and movies.csv: "
        "absolute, or relative to the data root (HYDRAREC_DATA)"
    )
    files_are: Kind = Field("dat", description="the files' ending: dat or csv")
    min_rating: MinRating = None

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """The ratings and the movies, absolute."""
        folder = on_this_machine(self.path, data_root)
        return folder / f"ratings.{self.files_are}", folder / f"movies.{self.files_are}"

    def describe(self) -> str:
        """The format and the folder's name."""
        return f"movielens {Path(self.path).name}"


def read_movielens(config: MovieLensConfig, data_root: Path) -> RawTables:
    """Read ratings as interactions and movies as items; a text is title and genres.

    Raises:
        ValueError: a file is absent; while reading, it is damaged as a whole.
    """
    ratings, movies = (existing_file(f, config.describe()) for f in config.files(data_root))
    events = {"user_id": "userId", "item_id": "movieId", "timestamp": "timestamp"}
    events |= rating_column("rating", config.min_rating)
    texts = text_columns(("title", "genres"))
    layout = _RATINGS[config.files_are], _MOVIES[config.files_are]
    return RawTables(
        order="time",
        interactions=event_parts(
            delimited_pieces(ratings, events, layout[0]), "s", min_rating=config.min_rating
        ),
        items=item_parts(
            delimited_pieces(movies, {"item_id": "movieId"} | texts, layout[1]), list(texts)
        ),
    )


def _recognise(sight: Sight) -> Guess | None:
    names = {file.name for file in sight.beside()}
    folder = sight.path if sight.path.is_dir() else sight.path.parent
    for kind in ("dat", "csv"):
        if {f"ratings.{kind}", f"movies.{kind}"} <= names:
            fields = {"path": str(folder)} | ({} if kind == "dat" else {"files_are": kind})
            return Guess(fields, f"ratings.{kind} and movies.{kind} stand in one folder")
    return None


FORMAT = Format(
    config=MovieLensConfig,
    read=read_movielens,
    summary="a folder with ratings and movies, .dat or .csv",
    recognise=_recognise,
)
