import json
from collections import Counter
from pathlib import Path

import pytest

from jobs.ingest import main
from pipeline.config import load
from pipeline.paths import data_root
from pipeline.sources.registry import read_source

ROOT = Path(__file__).resolve().parents[2]


def check(capsys, *arguments):
    status = main(["--check", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def reviews(tmp_path):
    rows = [
        {"user_id": "A1", "parent_asin": "B1", "timestamp": 1405296000123},
        {"user_id": "A2", "parent_asin": "B2", "timestamp": 1405382400999},
    ]
    file = tmp_path / "Oak_Desks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"user_id": "A3"}\n')
    return file


def test_what_is_read_and_refused_is_told(capsys, reviews):
    status, out, _ = check(capsys, reviews)
    assert status == 0
    assert "Oak_Desks.jsonl is amazon_reviews" in out
    assert "interactions   2\n" in out
    assert "refused        1\n" in out
    assert "Oak_Desks.jsonl:3:" in out
    assert "a run stops: mend them, or set cleaning: {max_bad_rows: 1}\n" in out
    assert "2014-07-14 to 2014-07-15" in out
    assert all(len(line) <= 80 for line in out.splitlines() if "/" not in line)


def test_the_yaml_is_a_config_that_reads_the_same(capsys, reviews, tmp_path):
    file = tmp_path / "run.yaml"
    status, out, _ = check(capsys, reviews, "--out", file)
    assert status == 0
    (domain,) = load(file).domains
    assert domain.name == "oak_desks"
    assert read_source(domain.source, data_root()).whole().interactions.height == 2
    assert file.read_text().split("\n", 1)[1] in out


def test_what_nobody_knows_is_a_mistake(capsys, tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    status, out, err = check(capsys, tmp_path / "picture.png")
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert "is in no format that is known" in err


def test_an_absent_path_is_a_mistake(capsys, tmp_path):
    status, _, err = check(capsys, tmp_path / "nothing")
    assert status == 2
    assert "is absent" in err


@pytest.mark.parametrize(
    ("path", "users", "interactions"),
    [
        ("amazon2014/beauty", "22,332", "198,215"),
        ("ml1m", "6,040", "999,611"),
        ("ids/Toys_and_Games.txt", "19,412", "167,597"),
    ],
)
def test_real_data_and_then_by_the_yaml_that_was_printed(
    capsys, tmp_path, path, users, interactions
):
    whole = data_root() / path
    if not whole.exists():
        pytest.skip(f"{path} is not below the data root")
    file = tmp_path / "run.yaml"
    status, out, _ = check(capsys, whole, "--out", file)
    assert status == 0
    assert f"users          {users}\n" in out
    assert f"interactions   {interactions}\n" in out
    (domain,) = load(file).domains
    assert not Path(domain.source.path).is_absolute()
    read = read_source(domain.source, data_root()).whole()
    assert f"{read.interactions.height:,}" == interactions


def test_recboles_own_sample_and_then_by_the_yaml_that_was_printed(capsys, tmp_path):
    samples = sorted(ROOT.glob(".venv-recbole/lib/*/site-packages/recbole/dataset_example"))
    if not samples:
        pytest.skip("RecBole's sample is not there: run make peers")
    folder = samples[0] / "ml-100k"
    file = tmp_path / "run.yaml"
    status, out, _ = check(capsys, folder, "--out", file)
    assert status == 0
    assert "users          943\n" in out
    assert "interactions   100,000\n" in out
    assert "texts          1,682 of 1,682 items that somebody had have one\n" in out
    (domain,) = load(file).domains
    read = read_source(domain.source, data_root()).whole()
    lines = (folder / "ml-100k.inter").read_text().splitlines()[1:]
    fields = (line.split("\t") for line in lines)
    expected = Counter((user, item, int(time)) for user, item, _, time in fields)
    assert Counter(read.interactions.iter_rows()) == expected
    assert (read.order, read.rejected) == ("time", ())
