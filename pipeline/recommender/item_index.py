"""An approximate index of a domain's items, and how much of the exact it finds.

    python -m pipeline.recommender.item_index bundles/demo --domain books

The exact top k reads every item's vector for each batch of users. The index
(Lance: IVF and PQ) reads a share of them, and misses some of the best. It is
built beside the bundle, into BUNDLE.index/DOMAIN; printed are its recall@k
against the exact top k, and the time of both, for users with random histories.
It is used only where it is handed over:

    index = ItemIndex.open("bundles/demo.index/books", rec, "books")
    rec.recommend_many(histories, 10, domain="books", index=index)

Scores are exact, and so is the order of what was found; items that were added
to the catalogue are always among the candidates.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from item_llm.folders import publish, staged
from pipeline.command_line import finished, job_parser
from pipeline.paths import project_root, resolve_place
from pipeline.recommender.catalogue import Catalogue
from pipeline.recommender.top_items import TopItems, top_items
from pipeline.whole_files import read_json, write_json

if TYPE_CHECKING:
    from pipeline.recommender.recommender import Recommender

_KIND = "item index"
_FEWEST_ITEMS = 256  # from which product quantisation learns its codes
_REFINED = 8  # candidates whose exact score is computed, for each item that is wanted
_BLOCK = 65_536
_HISTORY = 8  # events of the random histories that recall is measured with


@dataclass(frozen=True)
class ItemIndex:
    """An index of the items of one domain.

    Attributes:
        domain: its name.
        probes: partitions that a search looks at.
    """

    domain: str
    probes: int
    _table: Any
    _catalogue: Catalogue

    @classmethod
    def build(cls, folder: Path, catalogue: Catalogue, version: str) -> None:
        """Write an index of a catalogue's items, those of the bundle; an older one makes way.

        Args:
            folder: where it is to stand.
            catalogue: of the domain.
            version: hash of the bundle.

        Raises:
            ValueError: too few items, which the exact top k ranks in no time.
        """
        import lance

        vectors, n_items = next(catalogue.tables()), catalogue.n_trained
        if n_items < _FEWEST_ITEMS:
            raise ValueError(
                f"index of {catalogue.domain}: got {n_items} items, expected {_FEWEST_ITEMS} or "
                "more; rank them exactly, without an index"
            )
        width, partitions = vectors.shape[1], max(1, round(n_items**0.5 / 4))
        with staged(folder) as staging:
            place = str(staging / "items.lance")
            table = lance.write_dataset(_batches(vectors), place, schema=_schema(width))
            table.create_index(
                "vector",
                index_type="IVF_PQ",
                metric="dot",
                num_partitions=partitions,
                num_sub_vectors=width // next(size for size in (4, 2, 1) if width % size == 0),
            )
            facts = {"kind": _KIND, "bundle": version, "domain": catalogue.domain}
            write_json(staging / "manifest.json", facts | {"partitions": partitions})
            publish(staging, folder, replace=True)

    @classmethod
    def open(
        cls, folder: Path | str, recommender: Recommender, domain: str, probes: int | None = None
    ) -> Self:
        """Open the index of a bundle's domain.

        Args:
            folder: written by `build`.
            recommender: of the bundle that it was built for.
            domain: its name.
            probes: partitions that a search looks at; None: half of them.

        Raises:
            ValueError: no index, or one of another bundle or domain.
        """
        import lance

        facts = read_json(Path(folder) / "manifest.json")
        for what, expected in (("bundle", recommender.version), ("domain", domain)):
            if facts.get(what) != expected:
                raise ValueError(
                    f"index {folder}: got one of {what} {facts.get(what)!r}, expected "
                    f"{expected!r}; build it again"
                )
        table = lance.dataset(str(Path(folder) / "items.lance"))
        half = max(1, int(facts["partitions"]) // 2)
        return cls(domain, probes or half, table, recommender.catalogue(domain))

    def top_items(
        self, users_bw: Tensor, k: int, seen: Sequence[NDArray[np.int64]] | None
    ) -> TopItems:
        """As `top_items` does, of the items that the index finds and those that were added."""
        parts = [
            self._one(users_bw[user : user + 1], k, None if seen is None else seen[user])
            for user in range(len(users_bw))
        ]
        return TopItems(
            np.stack([part.rows[0] for part in parts]),
            np.stack([part.scores[0] for part in parts]),
            np.array([part.counts[0] for part in parts], dtype=np.int64),
        )

    def _one(self, user_1w: Tensor, k: int, seen: NDArray[np.int64] | None) -> TopItems:
        wanted = k + (0 if seen is None else len(seen))
        nearest = {"column": "vector", "q": user_1w[0].numpy(), "k": wanted}
        nearest |= {"nprobes": self.probes, "refine_factor": _REFINED}
        found = self._table.to_table(columns=["row", "_distance"], nearest=nearest)
        added = np.arange(self._catalogue.n_trained, self._catalogue.n_items)
        rows = np.sort(np.concatenate([found["row"].to_numpy(), added]))
        table = self._catalogue.vectors(rows).numpy()
        hidden = None if seen is None else [np.flatnonzero(np.isin(rows, seen))]
        best = top_items(user_1w, [table], k, hidden)
        return TopItems(rows[best.rows], best.scores, best.counts)


def recall(recommender: Recommender, index: ItemIndex, k: int, n_users: int) -> dict[str, float]:
    """Recall@k against the exact top k, of users with random histories, and seconds a user."""
    catalogue = recommender.catalogue(index.domain)
    drawn = np.random.default_rng(0).integers(0, catalogue.n_trained, (n_users, _HISTORY))
    users = recommender.states_of(index.domain, [catalogue.ids(rows) for rows in drawn])
    began = time.process_time()
    exact = recommender.recommend_many(users, k)
    between = time.process_time()
    found = recommender.recommend_many(users, k, index=index)
    ended = time.process_time()
    hits = [
        len(set(a.item_ids) & set(b.item_ids)) / max(len(a.item_ids), 1)
        for a, b in zip(exact, found, strict=True)
    ]
    return {
        "recall": float(np.mean(hits)),
        "exact_seconds": (between - began) / n_users,
        "index_seconds": (ended - between) / n_users,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Build an index and measure it; returns the exit status, as `finished` does."""
    options = _parser().parse_args(arguments)
    return finished(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    from pipeline.recommender.recommender import Recommender

    place = resolve_place(options.bundle, project_root())
    recommender = Recommender.load(place, stream_past_window=True)
    bundle = recommender.bundle.folder
    folder = bundle.with_name(f"{bundle.name}.index") / options.domain
    catalogue = recommender.catalogue(options.domain)
    print(f"{options.domain}: indexing {catalogue.n_trained:,} items ...", flush=True)
    ItemIndex.build(folder, catalogue, recommender.version)
    index = ItemIndex.open(folder, recommender, options.domain, options.probes)
    found = recall(recommender, index, options.k, options.users)
    print(
        f"recall@{options.k} {found['recall']:.4f} against the exact top k ({options.users} users, "
        f"{index.probes} probes)\n"
        f"exact {1e3 * found['exact_seconds']:.2f} ms, index {1e3 * found['index_seconds']:.2f} ms "
        f"of the processor a user\n{folder}",
        flush=True,
    )


def _schema(width: int) -> pa.Schema:
    return pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), width))])


def _batches(vectors: NDArray[np.float32]) -> Any:
    schema = _schema(vectors.shape[1])
    for at in range(0, len(vectors), _BLOCK):
        block = vectors[at : at + _BLOCK]
        flat = pa.array(np.ascontiguousarray(block).reshape(-1), pa.float32())
        rows = pa.array(np.arange(at, at + len(block)))
        fixed = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        yield pa.RecordBatch.from_arrays([rows, fixed], schema=schema)


def _parser() -> argparse.ArgumentParser:
    parser = job_parser("python -m pipeline.recommender.item_index", __doc__)
    parser.add_argument(
        "bundle",
        metavar="BUNDLE",
        help="a folder, relative to the project, or an s3:// address, whose index is built beside "
        "this machine's copy",
    )
    parser.add_argument("--domain", required=True, metavar="NAME", help="whose items")
    parser.add_argument("--k", type=int, default=100, metavar="N", help="of recall (default: 100)")
    parser.add_argument(
        "--probes", type=int, metavar="N", help="partitions looked at (default: half)"
    )
    parser.add_argument(
        "--users", type=int, default=200, metavar="N", help="recall is measured with (200)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
