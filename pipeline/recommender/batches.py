"""Recommendations for all users of a domain, a shard of users a file.

    OUT/request.json            what was asked for; another request in the same folder is refused
    OUT/part-00000.parquet ...  user_id, item_ids, scores of so many users, written aside
    OUT/manifest.json           checksums of all; written last

A shard that is there is not made again, so a killed job goes on where it stood.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from item_llm.folders import MANIFEST, write_manifest
from pipeline.recommender.histories import Part, UserHistories, open_histories
from pipeline.recommender.recommender import Recommender
from pipeline.whole_files import read_json, write_json

REQUEST = "request.json"
_KIND = "recommendations"
_BATCH_USERS = 1024  # who share a pass over the catalogue
_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True)
class Request:
    """What to recommend to whom.

    Attributes:
        bundle: its folder, which all workers see, or its address.
        histories: a corpus's folder or a Parquet file, which all workers see.
        domain: whose items.
        output: the folder of the results, which all workers see.
        k: items a user.
        exclude_seen: leave out what a user had.
        shard_users: users of a file.
        stream_past_window: see `Recommender.load`.
    """

    bundle: str | Path
    histories: Path
    domain: str
    output: Path
    k: int = 10
    exclude_seen: bool = True
    shard_users: int = 10_000
    stream_past_window: bool = False

    def shard(self, number: int) -> Path:
        """The file of a shard."""
        return self.output / f"part-{number:05d}.parquet"

    def load(self) -> tuple[Recommender, UserHistories]:
        """The model and the users; raises ValueError where either cannot be opened."""
        model = Recommender.load(self.bundle, stream_past_window=self.stream_past_window)
        return model, open_histories(self.histories, self.domain)

    def described(self, model: Recommender, users: UserHistories) -> dict[str, Any]:
        """What decides the results, and not where they are."""
        places = {"bundle", "histories", "output"}
        choices = {name: value for name, value in asdict(self).items() if name not in places}
        return choices | {
            **{"bundle": model.version, "histories": users.fingerprint, "users": len(users)},
        }


Shards = Callable[[Request, list[int]], Iterable[int]]


def recommend_all(
    request: Request, make: Shards, tell: Callable[[int, int], None]
) -> dict[str, Any]:
    """Make the shards that are not there; returns what request.json holds.

    Args:
        request: what to recommend to whom.
        make: writes shards of these numbers; yields how many users each finished one has.
        tell: told of the users that are done, and of all.

    Raises:
        ValueError: the folder holds another request's results; an unknown item or domain.
    """
    model, users = request.load()
    model.catalogue(request.domain)
    described = request.described(model, users)
    _begin(request, described)
    n_shards = -(-len(users) // request.shard_users)
    missing = [number for number in range(n_shards) if not request.shard(number).is_file()]
    left = sum(
        min(request.shard_users, len(users) - number * request.shard_users) for number in missing
    )
    done = len(users) - left
    tell(done, len(users))
    for count in make(request, missing):
        done += count
        tell(done, len(users))
    write_manifest(request.output, _KIND, {"shards": n_shards})
    return described


def write_shard(request: Request, number: int, model: Recommender, users: UserHistories) -> int:
    """Write one shard, aside and then in its place; returns how many users it has.

    Raises:
        ValueError: a user without events, or with an unknown item; the message names them.
    """
    path = request.shard(number)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    first = number * request.shard_users
    end = min(first + request.shard_users, len(users))
    try:
        with pq.ParquetWriter(aside, _SCHEMA, compression="zstd") as writer:
            for at in range(first, end, _BATCH_USERS):
                part = users.part(at, min(at + _BATCH_USERS, end))
                writer.write_table(_recommended(request, part, model))
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return end - first


def _recommended(request: Request, part: Part, model: Recommender) -> pa.Table:
    for user, history in zip(part.users, part.histories, strict=True):
        if not history:
            raise ValueError(f"histories: user {user!r} has no events; leave such users out")
    state = model.states_of(request.domain, part.histories, part.times)
    found = model.recommend_many(state, request.k, exclude_seen=request.exclude_seen)
    columns = [part.users, [one.item_ids for one in found], [one.scores for one in found]]
    arrays = [pa.array(c, kind) for c, kind in zip(columns, _SCHEMA.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _begin(request: Request, described: dict[str, Any]) -> None:
    """Note the request, or see that it is the one whose shards are there."""
    path = request.output / REQUEST
    request.output.mkdir(parents=True, exist_ok=True)
    (request.output / MANIFEST).unlink(missing_ok=True)
    if path.is_file():
        before = read_json(path)
        if before != described:
            differing = sorted(n for n in described if before.get(n) != described[n])
            raise ValueError(
                f"output {request.output}: holds results of another request ({differing[0]} was "
                f"{before.get(differing[0])!r}, now {described[differing[0]]!r}); give another "
                "folder, or remove this one"
            )
    elif any(request.output.iterdir()):
        raise ValueError(f"output {request.output}: is not empty; give a folder of its own")
    write_json(path, described)
