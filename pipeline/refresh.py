"""Bring the vectors' cache up to the item tables: what the job refresh_embeddings does.

    OUT/refresh.json               counts, seconds and figures of what was asked for besides
    OUT/quarantine/items.jsonl     items whose text could not be encoded: item, text, reason
    OUT/quarantine/DOMAIN.jsonl    rows of an item table that could not be read

The encoder is pinned (a finished adapter, or none): a refresh never trains it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from item_llm.cache import EmbeddingCache
from item_llm.item_keys import Catalogue
from item_llm.reading import describe_encoder
from item_llm.refresh import CatalogueRefresh, Encoded, Refreshed, RefreshPlan
from pipeline.config import RunConfig
from pipeline.item_tables import read_catalogue
from pipeline.item_vectors import adapter_on_workers, cache_place, pinned_adapter
from pipeline.locks import exclusive_lock
from pipeline.paths import data_root, project_root, resolve
from pipeline.progress import Progress, StageProgress
from pipeline.run import places
from pipeline.verify_vectors import compare, sample
from pipeline.whole_files import write_json, write_text
from pipeline.workers.cluster import connected
from pipeline.workers.encode import encode_on_cluster, encoder_loader

REFRESH = "refresh.json"
QUARANTINE = "quarantine"
_LOCK = ".lock"


@dataclass(frozen=True)
class RefreshOptions:
    """What to do besides encoding what is missing.

    Attributes:
        dry_run: say what would be done, and write nothing.
        verify: stored texts to encode again and compare; 0: none.
        gc: delete vectors that no item has, and versions that no run trained on.
        max_quarantined: texts that may be refused; more stop the refresh.
    """

    dry_run: bool = False
    verify: int = 0
    gc: bool = False
    max_quarantined: int = 100


@dataclass(frozen=True)
class _Planned:
    """A catalogue, what is to be done for it, and on which cache."""

    work: CatalogueRefresh
    catalogue: Catalogue
    plan: RefreshPlan

    def described(self) -> dict[str, Any]:
        """Items by what happened to them, distinct texts by what they need."""
        changes, cache = self.plan.changes, self.work.cache
        return {
            "fingerprint": cache.fingerprint,
            "dim": cache.dim,
            "items": len(self.catalogue),
            "new": len(changes.new),
            "changed": len(changes.changed),
            "removed": len(changes.removed),
            "to_encode": len(self.plan.texts),
            "reused": self.plan.reused,
        }


def refresh(
    config: RunConfig, options: RefreshOptions, out: Path | None, progress: Progress
) -> dict[str, Any]:
    """Refresh; returns what refresh.json holds.

    Args:
        config: domains, encoder, store and workers.
        options: what to do besides.
        out: folder of refresh.json; None: runs/NAME/refresh in the project.
        progress: where to say how far it is.

    Raises:
        ValueError: the encoder is not pinned, a table cannot be read, too many texts are refused,
            or stored vectors are not those of their texts.
        BusyError: another process refreshes into the same folder.
    """
    started = time.monotonic()
    check_pinned(config)
    store, run = places(config, None)
    folder = resolve(out, project_root()) if out else run.path / "refresh"
    with exclusive_lock(folder / _LOCK, wait=False), progress.running():
        place = cache_place(config.vectors, store.address)
        planned = _plan(config, place, folder / QUARANTINE, progress)
        report = planned.described() | {"dry_run": options.dry_run}
        if not options.dry_run:
            report |= _carry_out(config, options, planned, folder / QUARANTINE, progress)
        report["seconds"] = round(time.monotonic() - started, 3)
        write_json(folder / REFRESH, report)
    return report


def check_pinned(config: RunConfig) -> None:
    """See that the encoder is one that is finished.

    Raises:
        ValueError: a run would train it.
    """
    llm = config.item_llm
    if llm.adapter is None and llm.lora is not None:
        raise ValueError(
            "item_llm.adapter is null, so a run trains the encoder; a refresh needs a finished "
            "one: set item_llm.adapter to an adapter's folder (a run's item_llm output has one), "
            "or item_llm.lora to null for the frozen encoder"
        )


def _plan(config: RunConfig, vectors: str, quarantine: Path, progress: Progress) -> _Planned:
    with progress.stage("plan") as stage:
        catalogue = read_catalogue(config, data_root(), quarantine)
        encoder = describe_encoder(config.item_llm.encoder, pinned_adapter(config.item_llm))
        cache = EmbeddingCache.open(vectors, *encoder)
        work = CatalogueRefresh(cache)
        plan = work.plan(catalogue)
        stage.note(
            f"{len(catalogue):,} items: {len(plan.changes.new):,} new, "
            f"{len(plan.changes.changed):,} changed, {len(plan.changes.removed):,} removed; "
            f"{len(plan.texts):,} texts to encode, {plan.reused:,} reused"
        )
    return _Planned(work, catalogue, plan)


def _carry_out(
    config: RunConfig,
    options: RefreshOptions,
    planned: _Planned,
    quarantine: Path,
    progress: Progress,
) -> dict[str, Any]:
    cache = planned.work.cache
    done = _run(config, options, planned, progress)
    report: dict[str, Any] = {"encoded": done.encoded, "quarantined": len(done.quarantined)}
    _write_quarantine(quarantine / "items.jsonl", done)
    if options.verify:
        texts = sample(options.verify, cache, planned.catalogue)
        with connected(config.compute), progress.stage("verify") as stage:
            fresh = _encoded(config, texts, cache.fingerprint, stage)
            report["verified"] = compare(cache, texts, fresh)
    if options.gc:
        deleted, freed = planned.work.collect_garbage()
        report |= {"deleted": deleted, "freed_bytes": freed}
    return report | {"version": cache.version}


def _run(
    config: RunConfig,
    options: RefreshOptions,
    planned: _Planned,
    progress: Progress,
) -> Refreshed:
    work, catalogue, plan = planned.work, planned.catalogue, planned.plan
    if not plan.texts:  # no Ray is started for nothing
        return work.run(catalogue, plan, lambda _: ())
    with connected(config.compute), progress.stage("encode") as stage:

        def encode(texts: list[str]) -> Iterator[Encoded]:
            batches = _encoded(config, texts, work.cache.fingerprint, stage)
            return _few_refused(batches, options.max_quarantined)

        return work.run(catalogue, plan, encode)


def _encoded(
    config: RunConfig, texts: list[str], fingerprint: str, stage: StageProgress
) -> Iterator[Encoded]:
    llm = config.item_llm
    load = encoder_loader(llm.encoder, adapter_on_workers(llm), fingerprint)
    return encode_on_cluster(texts, load, config.compute, stage)


def _few_refused(batches: Iterable[Encoded], most: int) -> Iterator[Encoded]:
    """Pass batches on until more than `most` texts were refused: then the encoder is to blame."""
    refused = 0
    for batch in batches:
        refused += len(batch.refused)
        yield batch
        if refused > most:
            text, reason = batch.refused[0]
            raise ValueError(
                f"{refused} texts could not be encoded and --max-quarantined is {most}; the last "
                f"reason is {reason!r} for {text[:80]!r}; mend the encoder or the texts, or raise "
                "it; what was encoded is kept"
            )


def _write_quarantine(path: Path, done: Refreshed) -> None:
    path.unlink(missing_ok=True)
    if done.quarantined:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in done.quarantined]
        write_text(path, "".join(lines))
