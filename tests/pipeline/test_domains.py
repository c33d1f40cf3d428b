import json

import pytest
from pydantic import ValidationError

from pipeline.cleaning import CleaningConfig
from pipeline.domains import DomainConfig, build_domain

GOOD = "u,a,1\nu,b,2\nv,a,1\nv,b,3\n"
HEADER = "user_id,item_id,timestamp\n"


def build(tmp_path, text, items=None, seed=0, source=None, **cleaning):
    (tmp_path / "e.csv").write_text(HEADER + text, encoding="utf-8")
    config = {"format": "table", "interactions": "e.csv"} | (source or {})
    if items is not None:
        (tmp_path / "i.csv").write_text("item_id,title\n" + items, encoding="utf-8")
        config["items"] = "i.csv"
    domain = DomainConfig.model_validate({"name": "toys", "source": config, "cleaning": cleaning})
    return build_domain(domain, tmp_path, tmp_path / "quarantine", tmp_path / "work", seed=seed)


@pytest.mark.parametrize(
    "name", ["../x", "", "Toys", "a b", "a/b", "-a", "a" * 65, "a\n", ".", "é"]
)
def test_a_bad_domain_name_is_refused(name):
    with pytest.raises(ValidationError, match=r"the domain name .* cannot be used: give 1 to 64"):
        DomainConfig.model_validate({"name": name, "source": {"format": "ids", "path": "x"}})


def test_every_count_of_the_report(tmp_path):
    text = GOOD + "v,b,3\nw,a,9\nx,a,1\nx,b,2\nx,c,3\nx,d,4\nbroken\n"
    items = "a,A title\nb,\nz,Never bought\na,A longer title\n"
    domain = build(tmp_path, text, items, k_core=2, max_history=3, max_bad_rows=1)
    report = domain.report
    assert report.source == "table e.csv"
    assert report.rows_read == 15
    assert report.rejected == {"has more or fewer fields than the header": 1}
    assert report.interactions_read == 10
    assert report.removed_by_sampling == 0
    assert report.removed_duplicates == 1
    assert report.removed_by_length == 4
    assert report.removed_by_kcore == 1
    assert (report.users, report.items, report.interactions) == (2, 2, 4)
    assert (report.mean_history, report.median_history) == (2.0, 2.0)
    assert (report.empty_texts, report.items_without_events, report.repeated_items) == (1, 1, 1)
    assert domain.items.rows() == [("a", "A longer title"), ("b", "")]
    assert domain.interactions.rows() == [
        ("u", "a", 1),
        ("u", "b", 2),
        ("v", "a", 1),
        ("v", "b", 3),
    ]


def test_bad_rows_within_the_limit_are_quarantined(tmp_path):
    domain = build(tmp_path, GOOD + "broken\nu,a,NaN\n", max_bad_rows=2)
    assert domain.report.interactions == 4
    lines = (tmp_path / "quarantine" / "toys.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"file": "e.csv", "line": 6, "reason": "has more or fewer fields than the header",
         "row": "broken"},
        {"file": "e.csv", "line": 7, "reason": "the time is not a number of unix seconds",
         "row": "u,a,NaN"},
    ]  # fmt: skip


def test_more_bad_rows_than_allowed_name_the_first(tmp_path):
    message = (
        r"domain toys: 2 of the first 6 rows cannot be read, and cleaning\.max_bad_rows is "
        r"1; the first is .*e\.csv:6: has more or fewer fields than the header; the row begins "
        r"'broken'.*; mend"
    )
    with pytest.raises(ValueError, match=message):
        build(tmp_path, GOOD + "broken\nu,a,NaN\n", max_bad_rows=1)


def test_no_quarantine_without_bad_rows(tmp_path):
    build(tmp_path, GOOD)
    assert not (tmp_path / "quarantine").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"domain toys: table e\.csv holds no interactions"),
        ("u,a,1\n", "domain toys is empty after cleaning: of 1 interactions .* lower k_core"),
    ],
)
def test_an_empty_domain_says_why(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, text, k_core=2)


def test_one_user_with_one_item_is_a_domain(tmp_path):
    domain = build(tmp_path, "007,NA,1\n")
    assert domain.interactions.rows() == [("007", "NA", 1)]
    assert domain.items.rows() == [("NA", "")]


def test_without_times_nothing_is_a_duplicate_and_numbers_are_dense(tmp_path):
    text = "u,a,\nu,rare,\nu,a,\nu,b,\nv,a,\nv,b,\n"
    domain = build(tmp_path, text, source={"columns": {"timestamp": None}}, k_core=2)
    assert domain.interactions.rows() == [
        ("u", "a", 0), ("u", "a", 1), ("u", "b", 2), ("v", "a", 0), ("v", "b", 1),
    ]  # fmt: skip
    assert domain.report.removed_duplicates == 0


def test_texts_are_normalised_and_cut(tmp_path):
    domain = build(tmp_path, GOOD, "a,<b>Tom</b> &amp; Jerry again\nb,two\n", max_text_chars=11)
    assert domain.items.rows() == [("a", "Tom & Jerry"), ("b", "two")]


def test_the_same_people_are_chosen_in_every_domain(tmp_path):
    def users(most, platform="main", seed=0, people=None):
        text = "".join(f"u{n},a,{n}\n" for n in people or range(200))
        source = {"max_users": most, "platform": platform}
        return set(build(tmp_path, text, source=source, seed=seed).interactions["user_id"])

    few, many = users(20), users(60)
    assert (len(few), len(many)) == (20, 60)
    assert few < many
    assert users(20, people=reversed(range(200))) == few
    assert users(20, people=range(100)) >= few & {f"u{n}" for n in range(100)}
    assert users(20, seed=1) != few
    assert users(20, platform="other") != few


def test_lengths_that_leave_nobody_are_refused():
    with pytest.raises(ValidationError, match="max_history 4 removes every user"):
        CleaningConfig(k_core=5, max_history=4)


@pytest.mark.data
def test_all_of_amazon_comes_through(data_folder, tmp_path):
    counts = {"industrial": 22_743, "toys": 165_247}
    for name, interactions in counts.items():
        source = {"format": "sequences", "path": f"amazon2014/{name}"}
        config = DomainConfig.model_validate({"name": name, "source": source})
        report = build_domain(config, data_folder, tmp_path, tmp_path).report
        assert (report.interactions, report.interactions_read) == (interactions, interactions)
        assert (report.rejected, report.empty_texts) == ({}, 0)
