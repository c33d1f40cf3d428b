"""A bundle is whole or refused, and holds no more than it says."""

import json
import shutil

import numpy as np
import pytest

from item_llm.folders import MANIFEST
from pipeline import Recommender, export
from pipeline.recommender.bundle import Bundle


@pytest.fixture
def copy(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "copy")
    return tmp_path / "copy"


def test_the_same_run_gives_the_same_bytes(run, bundle, tmp_path):
    again = export.export(run.folder, "hydra_joint", tmp_path / "again")
    assert Bundle.open(again).version == Bundle.open(bundle).version
    assert Recommender.load(again).version == Bundle.open(bundle).version


def test_nothing_in_it_is_a_pickle(bundle):
    kinds = {path.suffix for path in bundle.rglob("*") if path.is_file()}
    assert kinds == {".json", ".arrow", ".npy", ".safetensors"}


@pytest.mark.parametrize(
    "name", ["bundle.json", "domains/books/vectors.npy", "models/all/weights.safetensors"]
)
def test_a_changed_or_absent_file_is_told(name, copy):
    path = copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        Recommender.load(copy)
    path.unlink()
    with pytest.raises(ValueError, match="no such file"):
        Recommender.load(copy)


def without_own_checksum(bundle):
    """A bundle's manifest as somebody would write it who means harm, or an older version did."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    del manifest["manifest_sha256"]
    return manifest


def test_no_path_leads_out_of_it(copy, tmp_path):
    manifest = without_own_checksum(copy)
    (tmp_path / "outside").write_text("secret")
    for name in ("../outside", str(tmp_path / "outside"), "domains/../../outside"):
        changed = manifest | {"files": manifest["files"] | {name: "0" * 64}}
        (copy / MANIFEST).write_text(json.dumps(changed))
        with pytest.raises(ValueError, match="no plain file within the bundle"):
            Recommender.load(copy)
    (copy / "link").symlink_to(tmp_path / "outside")
    changed = manifest | {"files": manifest["files"] | {"link": "0" * 64}}
    (copy / MANIFEST).write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="no plain file within the bundle"):
        Recommender.load(copy)


def test_another_format_and_no_bundle_are_told(copy, tmp_path):
    manifest = without_own_checksum(copy)
    (copy / MANIFEST).write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ValueError, match="got format 99, expected 1"):
        Recommender.load(copy)
    with pytest.raises(ValueError, match="not a finished bundle"):
        Recommender.load(tmp_path)


def test_objects_in_a_table_are_not_unpickled(copy):
    from item_llm.folders import write_manifest

    table = np.array([{"a": 1}] * 60, dtype=object)
    np.save(copy / "domains/books/vectors.npy", table, allow_pickle=True)
    write_manifest(copy, "bundle", {"format": 1})
    with pytest.raises(ValueError, match="is no table"):
        Recommender.load(copy)


def test_export_is_whole_or_not_there(run, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.recommender.writing.write_domain", fails)
    with pytest.raises(KeyboardInterrupt):
        export.export(run.folder, "hydra_joint", tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_the_command_tells_and_refuses(run, tmp_path, capsys):
    target = tmp_path / "bundle"
    arguments = [str(run.folder), "--output", str(target)]
    assert export.main(arguments) == 0
    assert f"bundle {Recommender.load(target).version}" in capsys.readouterr().out
    assert export.main(arguments) == 2
    assert "exists; give another folder, or --replace" in capsys.readouterr().err
    assert export.main([*arguments, "--replace"]) == 0
    told = {
        ("--model", "sasrec"): "reads its whole window again at each event",
        ("--model", "hydra_jont"): "did you mean `hydra_joint`?",
    }
    for more, message in told.items():
        assert export.main([str(run.folder), "--output", str(tmp_path / "no"), *more]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    assert export.main([str(run.folder), "--output", str(tmp_path / "full"), "--replace"]) == 2
    assert "is no bundle, so it is not replaced" in capsys.readouterr().err
    assert export.main([str(tmp_path), "--output", str(tmp_path / "no")]) == 2
    assert "not the folder of a finished run" in capsys.readouterr().err


def test_an_output_that_is_gone_is_told(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy, ignore=shutil.ignore_patterns("bundle.*"))
    card = json.loads((copy / "run.json").read_text())
    card["config"]["store"] = str(tmp_path / "nowhere")
    (copy / "run.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="no longer in the run store"):
        export.export(copy, "hydra_joint", tmp_path / "bundle")
    shutil.copytree(run.folder.parent / ".store", tmp_path / ".store")  # moved with the run
    assert export.export(copy, "hydra_joint", tmp_path / "bundle").is_dir()
