"""Small domains and corpora, built through the real path from a file."""

import csv
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from pipeline.corpus import Corpus, build_corpus
from pipeline.domains import Domain, DomainConfig, build_domain
from tests.beside import load

# The machine that runs the tests may be busy: time limits belong to pytest-timeout.
settings.register_profile("pipeline", deadline=None, max_examples=50)
settings.load_profile("pipeline")

Event = tuple[str, str, int]


@pytest.fixture(scope="session")
def domain_of(tmp_path_factory) -> Callable[..., Domain]:
    """domain_of(name, [(user, item, time), ...]): the domain that a CSV file of these gives."""
    folder: Path = tmp_path_factory.mktemp("domains")
    numbers = itertools.count()

    def build(
        name: str, events: Iterable[Event], *, order: str = "time", platform: str = "main", **more
    ) -> Domain:
        file = folder / f"{name}.csv"
        with file.open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerow(["user_id", "item_id", "timestamp"])
            rows.writerows(events)
        columns = {"timestamp": None} if order == "sequence" else {}
        source = {"format": "table", "interactions": str(file), "platform": platform}
        config = {"name": name, "source": source | {"columns": columns}, "cleaning": more}
        work = folder / f"{next(numbers)}"
        return build_domain(DomainConfig.model_validate(config), folder, work / "refused", work)

    return build


@pytest.fixture(scope="session")
def merge(tmp_path_factory) -> Callable[..., Corpus]:
    """merge([domain, ...]): their corpus, in a folder of its own."""
    folder: Path = tmp_path_factory.mktemp("corpora")
    numbers = itertools.count()

    def build(domains: Sequence[Domain]) -> Corpus:
        return build_corpus(domains, folder / f"{next(numbers)}")

    return build


@pytest.fixture(scope="session")
def corpus_of(domain_of, merge) -> Callable[..., Corpus]:
    """corpus_of({name: events}): a corpus of timed domains of one platform."""

    def build(domains: dict[str, list[Event]]) -> Corpus:
        return merge([domain_of(name, events) for name, events in domains.items()])

    return build


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The specification of preparing."""
    return load(Path(__file__).with_name("reference_corpus.py"))
