"""Odd data are read exactly, alike from every kind of file, and are no bad rows."""

import gzip

import pytest

from pipeline.corpus import build_corpus
from pipeline.data_findings import findings
from pipeline.domains import DomainConfig, build_domain
from pipeline.sources.registry import read_source
from tests.pipeline.faults.odd_data import ODD_DATA
from tests.pipeline.faults.tables import (
    EVENTS,
    KINDS,
    TITLES,
    domain_of,
    file_of,
    quarantined,
    source_of,
    write,
)

pytestmark = pytest.mark.faults
CASES = [(odd, kind) for odd in ODD_DATA for kind in odd.kinds]


@pytest.mark.parametrize(("odd", "kind"), CASES, ids=[f"{o.name} ({k})" for o, k in CASES])
@pytest.mark.timeout(60)
def test_odd_data_are_read_exactly(odd, kind, tmp_path):
    write(tmp_path, kind, odd.events, odd.titles)
    domain = domain_of(tmp_path, kind)
    assert domain.interactions.rows() == odd.expected_events()
    assert dict(domain.items.rows()) == odd.expected_texts()
    assert quarantined(tmp_path) == []
    assert domain.report.rejected == {}
    found = {name: getattr(domain.report, name) for name in odd.facts}
    assert found == odd.facts


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "sequences"])
@pytest.mark.parametrize("form", ["byte order mark", "CRLF", "no end of line", "blank lines"])
def test_the_form_of_a_text_file_changes_nothing(kind, form, tmp_path):
    change = {
        "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
        "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
        "no end of line": lambda data: data.removesuffix(b"\n"),
        "blank lines": lambda data: b"\n" + data.replace(b"\n", b"\n\n"),
    }[form]
    write(tmp_path, kind)
    for table in ("events", "items"):
        file = tmp_path / file_of(kind, table)
        if file.suffix == ".gz":
            file.write_bytes(gzip.compress(change(gzip.decompress(file.read_bytes()))))
        else:
            file.write_bytes(change(file.read_bytes()))
    domain = domain_of(tmp_path, kind)
    assert domain.interactions.rows() == sorted(EVENTS)
    assert dict(domain.items.rows()) == dict(TITLES)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_that_domains_share_are_one_person_and_two_items(kind, tmp_path):
    domains = []
    for name, title in (("first", "Oak"), ("second", "Pine")):
        write(tmp_path / name, kind, EVENTS, (("a", title),))
        config = {"name": name, "source": source_of(kind)}
        folder = tmp_path / name
        domains.append(
            build_domain(DomainConfig.model_validate(config), folder, folder, folder / "work")
        )
    corpus = build_corpus(domains, tmp_path / "corpus")
    assert list(corpus.user_keys) == ["main:u1", "main:u2", "main:u3"]
    assert list(corpus.item_ids) == ["a", "b", "c"] * 2
    assert list(corpus.texts) == ["Oak", "", "", "Pine", "", ""]
    assert corpus.n_events == 2 * len(EVENTS)


def test_times_in_milliseconds_are_read_as_such_where_that_is_said(tmp_path):
    for kind in ("csv", "tsv", "jsonl", "parquet"):
        folder = tmp_path / kind
        write(folder, kind, tuple((user, item, time * 1000 + 7) for user, item, time in EVENTS))
        source = source_of(kind, columns={"timestamp_unit": "ms"})
        assert domain_of(folder, kind, source=source).interactions.rows() == sorted(EVENTS)


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ((5_000_000_000, 1405296000), "  1 lie in the future: is their unit right?"),
        ((1405296, 1405297), "  all lie in 1970: is their unit right?"),
        ((20140714, 20140715), "  all lie in 1970: is their unit right?"),
    ],
)
def test_times_that_a_run_accepts_and_nobody_means_are_shown_by_check(times, told, tmp_path):
    write(tmp_path, "csv", tuple(("u", "a", time) for time in times))
    config = DomainConfig.model_validate({"name": "shop", "source": source_of("csv")})
    assert told in findings(read_source(config.source, tmp_path))
    write(tmp_path, "csv")
    assert not any("unit right" in line for line in findings(read_source(config.source, tmp_path)))


def test_the_table_has_enough_of_them():
    assert len({odd.name for odd in ODD_DATA}) >= 35
