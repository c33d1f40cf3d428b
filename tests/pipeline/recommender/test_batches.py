"""Recommendations to everybody: the same as one by one, resumed by shards, on Ray as here."""

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from item_llm.folders import read_manifest
from pipeline.recommender.batches import Request, recommend_all
from pipeline.run_outputs import RunOutputs
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.recommend import shards_on_cluster

HERE = ComputeConfig(workers=1, in_process=True)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def request_of(bundle, run, tmp_path):
    corpus = RunOutputs.read(run.folder).output("corpus") / "corpus"

    def build(**fields):
        return Request(
            **{"bundle": bundle, "histories": corpus, "domain": "garden"}
            | {"output": tmp_path / "out", "shard_users": 150, "k": 7}
            | fields
        )

    return build


def made(request, compute=HERE, told=None):
    def make(asked, numbers):
        return shards_on_cluster(asked, numbers, compute)

    recommend_all(request, make, lambda *done: told.append(done) if told is not None else None)
    parts = sorted(request.output.glob("part-*.parquet"))
    return pa.concat_tables(pq.read_table(part) for part in parts).to_pydict()


def test_everybody_gets_what_one_gets(request_of, shared):
    request, told = request_of(), []
    found = made(request, told=told)
    users = request.load()[1]
    part = users.part(0, len(users))
    assert found["user_id"] == part.users
    assert len(set(part.users)) == len(users) > 450
    for number in range(0, len(users), 37):
        alone = shared.recommend(part.histories[number], 7, domain="garden")
        assert found["item_ids"][number] == alone.item_ids
        np.testing.assert_allclose(found["scores"][number], alone.scores, atol=1e-6)
    assert told[0] == (0, len(users))
    assert told[-1] == (len(users), len(users))
    assert read_manifest(request.output, "recommendations")["shards"] == -(-len(users) // 150)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_on_ray_the_files_are_the_same_and_mistakes_one_sentence(request_of, tmp_path):
    here, on_ray = request_of(), request_of(output=tmp_path / "ray")
    assert made(here) == made(on_ray, ComputeConfig(workers=2))
    for path in here.output.glob("part-*.parquet"):
        assert path.read_bytes() == (on_ray.output / path.name).read_bytes()
    file = tmp_path / "users.parquet"
    pq.write_table(pa.table({"user_id": ["a"], "item_ids": [["no such"]]}), file)
    wrong = request_of(histories=file, output=tmp_path / "wrong")
    with pytest.raises(ValueError, match="garden has no item 'no such'"):
        made(wrong, ComputeConfig(workers=2))


def test_what_is_there_is_not_made_again(request_of):
    request = request_of()
    whole = made(request)
    parts = sorted(request.output.glob("part-*.parquet"))
    before = {part: part.stat().st_mtime_ns for part in parts}
    parts[1].unlink()
    told = []
    assert made(request, told=told) == whole
    assert told[0][0] == len(whole["user_id"]) - 150
    after = {part: part.stat().st_mtime_ns for part in parts}
    assert [part for part in parts if before[part] != after[part]] == [parts[1]]
    with pytest.raises(ValueError, match=r"results of another request \(k was 7, now 8\)"):
        made(request_of(k=8))


def test_users_may_stand_in_a_file(request_of, shared, tmp_path):
    ids = shared.catalogue("garden").ids(range(9))
    table = {"user_id": ["x", "y", "z"], "item_ids": [ids[:4], ids[2:3], ids]}
    file = tmp_path / "users.parquet"
    pq.write_table(pa.table(table), file, row_group_size=2)
    found = made(request_of(histories=file, shard_users=1, output=tmp_path / "file"))
    assert found["user_id"] == ["x", "y", "z"]
    for items, history in zip(found["item_ids"], table["item_ids"], strict=True):
        assert items == shared.recommend(history, 7, domain="garden").item_ids
    pq.write_table(
        pa.table(
            {"user_id": ["x"], "item_ids": [[]]},
        ),
        file,
    )
    with pytest.raises(ValueError, match="no events"):
        made(request_of(histories=file, output=tmp_path / "empty"))
    pq.write_table(pa.table({"user": ["x"]}), file)
    with pytest.raises(ValueError, match="item_ids is missing"):
        made(request_of(histories=file, output=tmp_path / "columns"))


@pytest.fixture(scope="module")
def job():
    place = ROOT / "jobs" / "recommend.py"
    spec = importlib.util.spec_from_file_location("recommend_job", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_job_tells_what_it_did(job, bundle, run, tmp_path, capsys):
    arguments = ["--bundle", str(bundle), "--domain", "books", "--in-process"]
    arguments += ["--output", str(tmp_path / "out")]
    assert job.main([*arguments, "--run", str(run.folder)]) == 0
    told = capsys.readouterr().out
    assert "users of books" in told
    assert str(tmp_path / "out") in told
    for more, message in (
        (["--run", str(run.folder), "--k", "0"], "--k: got 0, expected 1 or more"),
        (["--run", str(tmp_path)], "not the folder of a finished run"),
        (["--histories", str(tmp_path / "none")], "give a Parquet file"),
    ):
        assert job.main([*arguments, *more]) == 2
        assert message in capsys.readouterr().err
