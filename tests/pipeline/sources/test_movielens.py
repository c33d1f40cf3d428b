import pytest

from pipeline.sources.format import Sight
from pipeline.sources.registry import FORMATS, read_source

RATINGS = "1::10::5::978300760\n1::20::2::978302109\n2::10::3::978301968\n"
MOVIES = "10::Café Noir (1999)::Drama|Crime\n20::Plain Days (2001)::Comedy\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ratings.dat").write_text(RATINGS)
    (tmp_path / "movies.dat").write_bytes(MOVIES.encode("latin-1"))
    return tmp_path


def read(folder, **options):
    config = FORMATS["movielens"].config.model_validate({"path": str(folder)} | options)
    return read_source(config, folder).whole()


def test_ratings_are_interactions_and_movies_items(folder):
    tables = read(folder)
    assert tables.order == "time"
    assert tables.interactions.rows() == [
        ("1", "10", 978300760),
        ("1", "20", 978302109),
        ("2", "10", 978301968),
    ]
    assert tables.items.rows() == [
        ("10", "Café Noir (1999). Drama|Crime"),
        ("20", "Plain Days (2001). Comedy"),
    ]
    assert tables.rejected == ()


def test_csv_has_a_header_and_quotes(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.5,978300760\n")
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n10,"Days, Plain",Comedy\n')
    tables = read(tmp_path, files_are="csv")
    assert tables.interactions.rows() == [("1", "10", 978300760)]
    assert tables.items.rows() == [("10", "Days, Plain. Comedy")]


def test_low_ratings_are_left_out_if_asked(folder):
    tables = read(folder, min_rating=3)
    assert tables.interactions["item_id"].to_list() == ["10", "10"]
    assert tables.left_out == 1


def test_a_bad_row_is_named_with_its_line(folder):
    (folder / "ratings.dat").write_text(RATINGS + "3::10::5::then\n3::10::5\n")
    rejected = read(folder).rejected
    assert sorted(row.line for row in rejected) == [4, 5]
    assert {row.file.name for row in rejected} == {"ratings.dat"}


@pytest.mark.parametrize("kind", ["dat", "csv"])
def test_a_folder_is_recognised(tmp_path, kind):
    for name in ("ratings", "movies"):
        (tmp_path / f"{name}.{kind}").write_text("")
    guess = FORMATS["movielens"].recognise(Sight(tmp_path))
    config = FORMATS["movielens"].config.model_validate(guess.fields)
    assert [file.suffix for file in config.files(tmp_path)] == [f".{kind}"] * 2
    assert FORMATS["movielens"].recognise(Sight(tmp_path / f"ratings.{kind}")) == guess


def test_other_folders_are_not(tmp_path):
    (tmp_path / "ratings.dat").write_text("")
    assert FORMATS["movielens"].recognise(Sight(tmp_path)) is None
