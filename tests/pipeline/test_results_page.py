"""The page of results: a section replaces its own, and nothing else."""

import doctest

from pipeline import results_page
from pipeline.results_page import HEAD, put_section


def test_a_new_page_and_a_section_in_the_place_of_the_one_before(tmp_path):
    page = tmp_path / "results.md"
    put_section(page, "one", "first")
    put_section(page, "two", "second")
    put_section(page, "one", r"third \1")
    assert page.read_text() == (
        HEAD + "\n<!-- begin one -->\nthird \\1\n<!-- end one -->\n\n"
        "<!-- begin two -->\nsecond\n<!-- end two -->\n"
    )


def test_what_else_stands_on_the_page_stays(tmp_path):
    page = tmp_path / "results.md"
    page.write_text("# Results\n\n## Mine\n\nkept\n")
    put_section(page, "race", "first")
    assert page.read_text() == (
        "# Results\n\n## Mine\n\nkept\n\n<!-- begin race -->\nfirst\n<!-- end race -->\n"
    )


def test_the_example_of_a_table_is_true():
    result = doctest.testmod(results_page)
    assert result.attempted == 1
    assert result.failed == 0
