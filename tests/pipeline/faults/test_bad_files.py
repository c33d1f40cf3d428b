"""Every bad file of the table: one sentence with its name, strict or not, and nothing made."""

import pytest

from tests.pipeline.faults.bad_files import BAD_FILES
from tests.pipeline.faults.tables import KINDS, domain_of, file_of, write

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("allowed", [0, 1000], ids=["strict", "lenient"])
@pytest.mark.parametrize("bad", BAD_FILES, ids=str)
def test_a_bad_file_stops_the_run_with_its_name(bad, allowed, tmp_path):
    write(tmp_path, bad.kind)
    file = tmp_path / file_of(bad.kind, bad.table)
    bad.harm(file, file.read_bytes())
    told = bad.told if allowed or bad.strict is None else bad.strict
    with pytest.raises(ValueError, match=told) as raised:
        domain_of(tmp_path, bad.kind, max_bad_rows=allowed)
    sentence = str(raised.value)
    assert file.name in sentence or "sequences" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("kind", KINDS)
def test_a_domain_of_which_nothing_is_left_says_which_step_took_it(kind, tmp_path):
    write(tmp_path, kind)
    with pytest.raises(
        ValueError, match=r"domain shop is empty after cleaning: of 5.*lower k_core"
    ):
        domain_of(tmp_path, kind, k_core=4)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_an_items_table_that_is_no_table_is_not_taken_for_items_without_texts(kind, tmp_path):
    write(tmp_path, kind)
    (tmp_path / file_of(kind, "items")).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"items\.{kind} (is empty|holds no object|is not a)"):
        domain_of(tmp_path, kind, max_bad_rows=1000)


def test_the_table_has_enough_of_them():
    assert len({bad.name for bad in BAD_FILES}) >= 18
