"""A bundle in an object store: exported to it, opened from it, replaced, damaged."""

import json

import numpy as np
import pytest

from item_llm import ItemLLMConfig
from item_llm.adapter import read_adapter_sha256
from pipeline import Recommender
from pipeline.export import export, main
from pipeline.item_vectors import adapter_on_workers, pinned_adapter_sha256
from pipeline.recommender.bundle import Bundle
from pipeline.storage.bucket import Bucket
from pipeline.storage.mirror import mirror_of
from pipeline.storage.results_copy import put_results


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRAREC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def address(bucket):
    return f"{bucket}/bundles/shop"


def test_a_pinned_adapter_is_read_from_an_address_on_every_machine(
    run, bundle, bucket, tmp_path, monkeypatch
):
    put_results(bundle / "adapter", Bucket(f"{bucket}/adapters/shop"), last="")
    config = run.config.item_llm
    here = config.model_copy(update={"adapter": str(bundle / "adapter")})
    there = ItemLLMConfig.model_validate(
        config.model_dump() | {"adapter": f"{bucket}/adapters/shop"}
    )
    assert pinned_adapter_sha256(there) == pinned_adapter_sha256(here)
    assert adapter_on_workers(here)() == bundle / "adapter"
    of_a_worker = adapter_on_workers(there)
    monkeypatch.setenv("HYDRAREC_CACHE", str(tmp_path / "another machine"))
    copy = of_a_worker()
    assert copy.is_relative_to(tmp_path / "another machine")
    assert read_adapter_sha256(copy) == pinned_adapter_sha256(here)


def objects(address):
    return Bucket(address).sizes("")


def test_it_recommends_what_the_folder_does(run, bundle, address):
    assert export(run.folder, output=address) == address
    here, there = Recommender.load(bundle), Recommender.load(address)
    assert there.version == here.version
    history = here.catalogue("books").ids([3, 1, 4])
    own, far = (one.recommend(history, 5, domain="books") for one in (here, there))
    assert far.item_ids == own.item_ids
    np.testing.assert_array_equal(far.scores, own.scores)


def test_the_manifest_goes_last_and_nothing_else_is_left_on_this_machine(
    run, address, cache, monkeypatch
):
    def broken(*given, **more):
        raise OSError("the network is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "write", broken)
        with pytest.raises(OSError, match="network"):
            export(run.folder, output=address)
    assert objects(address)
    assert "manifest.json" not in objects(address)
    with pytest.raises(ValueError, match="no finished bundle; check the address"):
        Bundle.open(address)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    export(run.folder, output=address)
    assert Bundle.open(address).config.model == "hydra_joint"


def test_one_that_is_there_is_replaced_only_if_asked(run, address, capsys):
    export(run.folder, model="hydra_ids", output=address)
    first = Bundle.open(address)
    with pytest.raises(ValueError, match="--replace"):
        export(run.folder, output=address)
    assert Bundle.open(address).version == first.version
    assert main([str(run.folder), "--output", address, "--replace"]) == 0
    assert address in capsys.readouterr().out.splitlines()[-1]
    assert Bundle.open(address).config.model == "hydra_joint"
    # Whoever opened the first one still has all of it.
    assert first.folder != Bundle.open(address).folder
    assert first.file("bundle.json").is_file()


def test_two_writers_at_once_leave_one_bundle(run, address, monkeypatch):
    monkeypatch.setattr("pipeline.storage.shared_folder.check_free", lambda address: None)
    export(run.folder, model="hydra_ids", output=address)
    with pytest.raises(ValueError, match="meanwhile"):
        export(run.folder, output=address)
    assert Bundle.open(address).config.model == "hydra_ids"


def test_a_copy_that_is_there_is_not_fetched_again(run, address, monkeypatch):
    export(run.folder, output=address)
    Bundle.open(address)
    monkeypatch.setattr(Bucket, "download", None)
    Bundle.open(address)


def test_a_damaged_copy_is_mended_and_a_damaged_object_told(run, address):
    export(run.folder, output=address)
    copy = Bundle.open(address).folder
    assert copy.is_relative_to(mirror_of(address))
    (copy / "metrics.json").write_text("{}")
    assert Bundle.open(address).folder == copy
    (name,) = (key for key in objects(address) if key.startswith("files/metrics.json"))
    size = objects(address)[name]
    Bucket(address).write(name, b"x" * size)
    (copy / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"files/metrics\.json.* has sha256"):
        Bundle.open(address)
    Bucket(address).delete([name])
    with pytest.raises(ValueError, match=r"files/metrics\.json.* is absent"):
        Bundle.open(address)


def test_no_path_of_a_manifest_leads_out_of_the_copy(run, address):
    export(run.folder, output=address)
    manifest = json.loads(Bucket(address).read("manifest.json").data)
    del manifest["manifest_sha256"]
    manifest["files"]["../metrics.json"] = manifest["files"].pop("metrics.json")
    Bucket(address).write("manifest.json", json.dumps(manifest).encode())
    with pytest.raises(ValueError, match="not one within a folder"):
        Bundle.open(address)
    Bucket(address).write("manifest.json", b'{"kind"')
    with pytest.raises(ValueError, match=f"{address}: its manifest.json is damaged"):
        Bundle.open(address)
