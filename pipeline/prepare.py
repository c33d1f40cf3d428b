"""The corpus stage: read and clean every domain, merge them, count everything.

corpus/             the Corpus
data.json           what was read, refused, removed and kept, for the report
quarantine/         DOMAIN.jsonl, a line for each row that was refused
oracle/             DOMAIN.npz, the truth behind a simulated domain
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.corpus import Corpus, build_corpus, shared_users
from pipeline.domains import Domain, build_domain
from pipeline.poor_texts import make_poor
from pipeline.sources.registry import source_fingerprint
from pipeline.sources.simulated import has_oracle, simulated_oracle
from pipeline.stages import StageContext
from pipeline.whole_files import write_json

CORPUS = "corpus"
DATA = "data.json"
ORACLE = "oracle"
QUARANTINE = "quarantine"
_WORK = "domains"


def source_fingerprints(config: RunConfig, data_root: Path) -> list[str]:
    """SHA-256 of what each domain's source reads, in the config's order.

    Raises:
        ValueError: a file is absent.
    """
    return [source_fingerprint(domain.source, data_root) for domain in config.domains]


def make_corpus(config: RunConfig, data_root: Path, context: StageContext) -> dict[str, Any]:
    """Write the corpus and its counts; returns the corpus's fingerprint and sizes.

    Raises:
        ValueError: a file that cannot be read, too many bad rows, or a domain left empty.
    """
    with _work_folder(context.scratch / _WORK) as work:
        domains = [
            _domain(config, number, data_root, work, context)
            for number in range(len(config.domains))
        ]
        context.progress.update(len(domains), len(domains), "domains", "merging")
        corpus = build_corpus(domains, context.output / CORPUS)
    write_json(context.output / DATA, describe(corpus, domains))
    context.progress.note(
        f"{len(domains)} domains, {corpus.n_users:,} users, {corpus.n_items:,} items, "
        f"{corpus.n_events:,} interactions"
    )
    return {"fingerprint": corpus.fingerprint()}


def _domain(
    config: RunConfig, number: int, data_root: Path, work: Path, context: StageContext
) -> Domain:
    """One domain in the work folder, and the truth behind it where that is known."""
    domain = config.domains[number]

    def tell(what: str) -> None:
        context.progress.update(number, len(config.domains), "domains", f"{domain.name}: {what}")

    quarantine = context.output / QUARANTINE
    built = build_domain(domain, data_root, quarantine, work, seed=config.sampling_seed, tell=tell)
    poor = config.poor_text
    if poor is not None and (poor.domains is None or domain.name in poor.domains):
        changed = make_poor(built.texts, built.item_ids, domain.name, poor)
        context.progress.note(f"{domain.name}: {changed:,} texts made worse (poor_text)")
    if has_oracle(domain.source):
        (context.output / ORACLE).mkdir(exist_ok=True)
        oracle = simulated_oracle(domain.source)
        oracle.save(context.output / ORACLE / f"{domain.name}.npz")
    return built


@contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that goes with the block, whatever becomes of it."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def describe(corpus: Corpus, domains: list[Domain]) -> dict[str, Any]:
    """data.json: the counts of every domain, and the people that pairs of domains share."""
    return {
        "domains": {domain.name: asdict(domain.report) for domain in domains},
        "shared_users": {pair: n for pair, n in shared_users(corpus).items() if n},
    }
