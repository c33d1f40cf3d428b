import pytest

from pipeline.sources.format import Sight
from pipeline.sources.registry import FORMATS, read_source

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
EVENTS = "u1\ti1\t3.0\t881250949.0\nu1\ti2\t5\t891717742\n"
ITEM = "item_id:token\tmovie_title:token_seq\tyear:token\tclass:token_seq\n"


@pytest.fixture
def events(tmp_path):
    file = tmp_path / "tiny.inter"
    file.write_text(INTER + EVENTS)
    return file


def read(file, **options):
    config = FORMATS["recbole"].config.model_validate({"path": str(file)} | options)
    return read_source(config, file.parent).whole()


def test_interactions_without_items(events):
    tables = read(events)
    assert tables.interactions.rows() == [("u1", "i1", 881250949), ("u1", "i2", 891717742)]
    assert (tables.items.height, tables.order, tables.rejected) == (0, "time", ())


def test_a_text_is_made_of_the_token_sequences(events):
    (events.parent / "tiny.item").write_text(ITEM + "i1\tQuiet Hours\t1996\tDrama Comedy\n")
    assert read(events).items.rows() == [("i1", "Quiet Hours. Drama Comedy")]
    assert read(events, text=["movie_title"]).items.rows() == [("i1", "Quiet Hours")]


def test_low_ratings_are_left_out_if_asked(events):
    tables = read(events, min_rating=4)
    assert tables.interactions["item_id"].to_list() == ["i2"]


def test_without_times_the_order_is_that_of_the_rows(tmp_path):
    file = tmp_path / "plain.inter"
    file.write_text("user_id:token\titem_id:token\nu\ta\nv\ta\nu\tb\n")
    guess = FORMATS["recbole"].recognise(Sight(tmp_path))
    tables = read(file, **guess.fields)
    assert tables.order == "sequence"
    assert tables.interactions.rows() == [("u", "a", 0), ("v", "a", 1), ("u", "b", 2)]


def test_a_bad_row_is_named_with_its_line(events):
    events.write_text(INTER + EVENTS + "u2\ti1\t3\tsoon\n")
    (rejected,) = read(events).rejected
    assert (rejected.line, rejected.file.name) == (4, "tiny.inter")


def test_an_absent_field_is_named(events):
    with pytest.raises(ValueError, match="person"):
        read(events, user="person")


def test_a_header_without_types_is_refused(tmp_path):
    file = tmp_path / "bare.inter"
    file.write_text("user_id\titem_id\n")
    with pytest.raises(ValueError, match="expected names with types"):
        FORMATS["recbole"].recognise(Sight(file))


def test_recognised_by_its_header(events):
    guess = FORMATS["recbole"].recognise(Sight(events.parent))
    assert guess.fields == {"path": str(events)}
    assert "user_id" in guess.why
