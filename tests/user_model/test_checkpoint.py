import json

import pytest
import torch

from user_model import Hydra, HydraConfig, SASRec, SASRecConfig
from user_model.checkpoint import (
    MANIFEST,
    WEIGHTS,
    CheckpointError,
    load_weights,
    read_config,
    save_weights,
)


def hydra(layers=1):
    return Hydra(HydraConfig(dim=16, layers=layers))


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "deep" / "model"
    model = hydra()
    save_weights(folder, model, {"model": model.config.model_dump()})
    return folder, model


def test_weights_and_configuration_come_back(saved):
    folder, model = saved
    other = Hydra(HydraConfig(**read_config(folder)["model"]))
    assert load_weights(folder, other) == {"model": model.config.model_dump()}
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_saving_again_replaces_and_leaves_nothing_aside(saved):
    folder, _ = saved
    newer = hydra(layers=2)
    save_weights(folder, newer, {})
    load_weights(folder, hydra(layers=2))
    assert [p.name for p in folder.parent.iterdir()] == ["model"]
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, WEIGHTS]


@pytest.mark.faults
def test_a_changed_byte_is_noticed(saved):
    folder, model = saved
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match="the file is damaged"):
        load_weights(folder, model)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / MANIFEST).unlink(), "expected the manifest of a complete checkpoint"),
        (lambda f: (f / WEIGHTS).unlink(), "is no file of its folder"),
        (lambda f: (f / MANIFEST).write_text("{"), "not a manifest"),
        (lambda f: (f / MANIFEST).write_text("[]"), "not a manifest"),
    ],
)
def test_an_incomplete_folder_raises(saved, break_it, message):
    folder, model = saved
    break_it(folder)
    with pytest.raises(CheckpointError, match=message):
        load_weights(folder, model)


def test_a_manifest_cannot_name_a_file_outside_its_folder(saved):
    folder, model = saved
    (folder.parent / "other").write_text("x")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"]["../other"] = "0"
    del manifest["manifest_sha256"]  # whoever writes such a manifest would write a new one
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"\.\./other"):
        load_weights(folder, model)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sha256": {WEIGHTS: {"a": "b"}}}, "not a manifest.*a checksum is no text"),
        ({"sha256": {WEIGHTS: None}}, "not a manifest.*a checksum is no text"),
        ({"sha256": [WEIGHTS]}, "not a manifest"),
        ({"sha256": {"a" * 300: "b"}}, "names 'aaa.*no file of its folder"),
        ({"sha256": {"a\0": "b"}}, "no file of its folder"),
        ({"record": "config"}, "not a manifest.*the record is no mapping"),
        ({"record": {}}, "no config"),
        ({"record": {"config": 3}}, "no config"),
    ],
)
def test_a_manifest_of_another_shape_is_refused(saved, fields, message):
    folder, model = saved
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["manifest_sha256"]
    (folder / MANIFEST).write_text(json.dumps(manifest | fields))
    with pytest.raises(CheckpointError, match=message):
        load_weights(folder, model)


def test_a_manifest_of_another_format_raises(saved):
    folder, model = saved
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["manifest_sha256"]
    (folder / MANIFEST).write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(CheckpointError, match="got format 99, expected 1"):
        load_weights(folder, model)


def test_weights_of_another_model_name_the_tensor(saved):
    folder, _ = saved
    with pytest.raises(CheckpointError, match=r"blocks\.1\..*got None"):
        load_weights(folder, hydra(layers=2))
    with pytest.raises(CheckpointError, match="tensors differ"):
        load_weights(folder, SASRec(SASRecConfig(dim=16)))
