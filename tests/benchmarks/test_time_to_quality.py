"""benchmarks.time_to_quality takes turns, keeps clocks of its own, and goes on where it stopped."""

import gzip
import json
import time

import pytest

from benchmarks import time_to_quality
from benchmarks.quality_cells import Cell
from benchmarks.quality_data import RaceData, RivalData, find_data
from benchmarks.quality_rivals import DEFAULT_RIVALS, Rival
from pipeline.whole_files import read_json, write_json

MODELS = ("sasrec_bce:dim=8,epochs=3", "sasrec_ss:dim=8,epochs=3", "hydra:dim=8,epochs=3")


def run(capsys, out, *arguments):
    """Run quickly: the exit status, the epochs as they were told, and the JSON."""
    given = ["--quick", "--out", str(out), "--models", *MODELS, *arguments]
    status = time_to_quality.main(given)
    lines = capsys.readouterr().out.splitlines()
    told = [tuple(line.split()[:3:2]) for line in lines if " epoch " in line and "loss" in line]
    return status, told, json.loads(lines[-1])


def curves(out):
    """What of each curve does not depend on the clock."""
    return {
        path.stem: [{k: p[k] for k in ("epoch", "step", "loss", "ndcg@10")} for p in kept["curve"]]
        for path in sorted(out.glob("*.json"))
        if (kept := read_json(path))
    }


def test_a_race_in_turns_and_one_that_was_interrupted_end_alike(capsys, tmp_path):
    status, told, report = run(capsys, tmp_path / "whole")
    assert told == [(name, str(epoch)) for epoch in (1, 2, 3) for name in MODELS]
    assert report["benchmark"] == "time_to_quality"
    assert status == int(not all(check["ok"] for check in report["checks"]))
    rows = [figures for figures in report["rows"] if "section" not in figures]
    assert [figures["model"] for figures in rows] == list(MODELS)
    for figures in rows:
        assert figures["epochs"] == 3
        assert figures["state"] == "schedule ended"
        assert figures["cpu_seconds"] > 0
        assert 0 <= figures["test_ndcg@10"] <= 1
    configs = {r["name"]: r for r in report["rows"] if r.get("section") == "config"}
    assert configs[MODELS[2]]["config"]["dim"] == 8
    assert configs[MODELS[0]]["config"]["training"]["loss"] == "bce"

    _, told, _ = run(capsys, tmp_path / "parts", "--epochs", "1")
    assert len(told) == len(MODELS)
    _, told, again = run(capsys, tmp_path / "parts")
    assert told == [(name, str(epoch)) for epoch in (2, 3) for name in MODELS]
    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")
    _, told, once_more = run(capsys, tmp_path / "parts")
    assert told == []
    assert once_more == again


def test_another_seed_or_a_lost_checkpoint_does_not_mix_into_a_curve(capsys, tmp_path):
    run(capsys, tmp_path, "--epochs", "1")
    given = ["--quick", "--out", str(tmp_path), "--models", MODELS[2]]
    assert time_to_quality.main([*given, "--seed", "1"]) == 2
    assert "got config_hash" in capsys.readouterr().err
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    assert time_to_quality.main(given) == 2
    assert "stops after 1 epochs" in capsys.readouterr().err


def with_texts(folder):
    """A folder of 60 users and 20 items, two of which have one title."""
    folder.mkdir(parents=True)
    walks = [[str((user + step) % 20) for step in range(6)] for user in range(60)]
    times = " ".join(str(1400000000 + day) for day in range(6))
    users = "".join(f"u{i}\t{' '.join(walk)}\t{times}\n" for i, walk in enumerate(walks))
    items = "".join(f"{i}\tSoap of kind {max(i, 1)}\t\n" for i in range(20))
    for name, text in (("sequences", users), ("items", items)):
        (folder / f"{name}.tsv.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def test_hydra_with_texts_races_and_its_encoding_is_told_apart(capsys, tmp_path):
    folder = with_texts(tmp_path / "shop" / "soaps")
    given = ["--data", str(folder), "--out", str(tmp_path / "out"), "--models"]
    models = ["hydra:dim=8,epochs=2", "hydra_text:dim=8,epochs=2"]
    time_to_quality.main([*given, *models, "--epochs", "1"])
    capsys.readouterr()
    out = tmp_path / "out"
    mine = out / "texts-minilm" / "hydra_text-dim=8-epochs=2.json"
    ids, texts = read_json(out / "hydra-dim=8-epochs=2.json"), read_json(mine)
    assert ids["data"]["name"] == texts["data"]["name"] == "shop-soaps"
    assert ids["texts"] is None
    assert (texts["texts"]["base"], texts["texts"]["texts"]) == ("minilm", 19)
    assert texts["texts"]["cpu_seconds"] > 0
    # Text is where the ids begin, and costs no weight; it decides the first epoch.
    assert texts["parameters"] == ids["parameters"]
    assert texts["curve"][0]["loss"] != ids["curve"][0]["loss"]
    time_to_quality.main([*given, *models])
    assert "hydra_text:dim=8,epochs=2    epoch   2" in capsys.readouterr().out
    again = read_json(mine)
    assert again["texts"] == texts["texts"]  # not encoded again
    assert again["config_hash"] == texts["config_hash"]
    time_to_quality.main([*given, *models, "--text", "static"])
    other = read_json(out / "texts-static" / mine.name)
    assert other["texts"]["base"] == "static"
    assert other["config_hash"] != texts["config_hash"]
    assert "hydra:dim=8" not in capsys.readouterr().out.split("\n")[0]  # its curve is there


def test_texts_that_are_not_there_are_asked_for(capsys, tmp_path):
    assert time_to_quality.main(["--quick", "--models", "hydra_text:dim=8"]) == 2
    assert "hydra_text reads the items' texts, and circle has none" in capsys.readouterr().err


@pytest.fixture
def race(tmp_path):
    return RaceData.prepare(time_to_quality._made_up(tmp_path), tmp_path / "corpus", seed=0)


def test_validation_is_on_no_clock(race, tmp_path, monkeypatch):
    def slow(self, model):
        time.sleep(2.0)
        return 0.5

    cell = Cell(Rival.parse("hydra:dim=8,epochs=2"), race, tmp_path, seed=0)
    cell.warm_up()
    monkeypatch.setattr(RivalData, "validation", slow)
    before = cell.advance()["seconds"]
    began = time.perf_counter()
    seconds = cell.advance()["seconds"] - before
    assert time.perf_counter() - began - seconds >= 2.0
    assert cell.record["best"]["ndcg@10"] == 0.5
    assert cell.ended


def test_a_point_that_a_kill_kept_out_of_the_file_is_found_in_the_checkpoint(race, tmp_path):
    rival = Rival.parse("hydra:dim=8,epochs=3")
    first = Cell(rival, race, tmp_path, seed=0)
    points = [first.advance() for _ in range(2)]
    file = tmp_path / f"{rival.file_name}.json"
    kept = read_json(file)
    del kept["curve"][-1]
    write_json(file, kept)
    second = Cell(rival, race, tmp_path, seed=0)
    assert second.epochs == 1
    assert second.advance() == points[1]


def test_the_test_figure_is_that_of_the_best_epoch_and_trains_nothing(race, tmp_path, monkeypatch):
    cell = Cell(Rival.parse("hydra:dim=8,epochs=3"), race, tmp_path, seed=0)
    figures = iter([0.2, 0.9, 0.1])
    tested = []

    def validated(self, model):
        tested.append(self.test(model))
        return next(figures)

    with monkeypatch.context() as patch:
        patch.setattr(RivalData, "validation", validated)
        for _ in range(3):
            cell.advance()
    curve = [dict(point) for point in cell.record["curve"]]
    cell.test()
    assert cell.record["best"] == {"epoch": 2, "ndcg@10": 0.9, "test_ndcg@10": tested[1]}
    assert cell.record["curve"] == curve


def test_the_race_is_strict_and_counts_its_data(race):
    facts = race.facts()
    assert (facts["users"], facts["items"], facts["interactions"]) == (80, 40, 634)
    assert facts["split"]["kind"] == "strict"
    # Neither of a user's last two events trains.
    assert race.histories.offsets[-1] == 634 - 2 * 80


def test_sasrec_is_the_published_one_and_changes_land_where_they_belong():
    bce = Rival.parse("sasrec_bce").architecture
    assert (bce.dim, bce.layers, bce.heads, bce.ffn_width) == (64, 2, 1, 64)
    assert (bce.training.loss, bce.training.negatives) == ("bce", 512)
    rival = Rival.parse("hydra:dim=24,ffn_dim=32,dropout=0.2,epochs=12,lr=1e-3")
    assert (rival.architecture.dim, rival.architecture.ffn_dim) == (24, 32)
    assert (rival.architecture.training.epochs, rival.architecture.training.lr) == (12, 1e-3)
    assert rival.architecture.dropout == 0.2
    assert rival.architecture.training.temperature == 0.1
    assert rival.file_name == "hydra-dim=24-ffn_dim=32-dropout=0.2-epochs=12-lr=1e-3"
    assert len({Rival.parse(name).file_name for name in DEFAULT_RIVALS}) == len(DEFAULT_RIVALS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hydar", "models: hydar: there is no model hydar; did you mean `hydra`"),
        ("hydra:dims=24", "hydra:dims=24: dims: unknown field; did you mean `dim`"),
        ("hydra:dim", "got `dim`, expected FIELD=VALUE"),
        ("hydra:dim=wide", "dim: .* got 'wide'"),
        ("hydra:dim=24,head_dim=3", "expected an even number"),
    ],
)
def test_a_model_that_does_not_exist_is_refused_by_name(name, message):
    with pytest.raises(ValueError, match=message):
        Rival.parse(name)


def test_data_are_found_below_the_root_or_by_path(tmp_path):
    file = tmp_path / "ids" / "Small.txt"
    file.parent.mkdir()
    file.write_text("u a b c\n")
    for name in ("ids/Small", "ids/Small.txt", str(file)):
        assert find_data(name, tmp_path) == file
    folder = with_texts(tmp_path / "shop" / "soaps")
    assert find_data("shop/soaps", tmp_path) == folder
    with pytest.raises(ValueError, match=r"data: ids/Absent is absent, looked for .* --root"):
        find_data("ids/Absent", tmp_path)


def test_absent_data_end_with_a_sentence(capsys, tmp_path):
    assert time_to_quality.main(["--data", "ids/Absent", "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: data: ids/Absent is absent")
