"""jobs/refresh_embeddings.py on a real Ray, with a real small encoder and a pinned adapter."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from item_llm import EncoderConfig, ItemEncoder, LoraConfig, load_encoder
from item_llm.adapter import attach_lora, save_adapter
from item_llm.cache import EmbeddingCache
from jobs.refresh_embeddings import main

ROOT = Path(__file__).resolve().parents[2]
ENCODER = {"base": "minilm", "max_tokens": 16}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A finished adapter, as fine-tuning leaves it."""
    encoder = ItemEncoder.load(EncoderConfig(**ENCODER))
    attach_lora(encoder, LoraConfig(r=2))
    trained = {n: p.detach() + 0.05 for n, p in encoder.named_parameters() if p.requires_grad}
    folder, _ = save_adapter(encoder, trained, tmp_path_factory.mktemp("adapter") / "adapter")
    return folder


class Shop:
    """A folder with a shop's tables and the config of a refresh."""

    def __init__(self, folder, adapter):
        self.folder, self.adapter = folder, adapter
        self.out, self.config = folder / "out", folder / "run.yaml"
        self.write_items({f"i{n}": f"wooden toy, {n} pieces" for n in range(40)})
        events = "".join(f"u{n % 7},i{n},{1000 + n}\n" for n in range(40))
        (folder / "events.csv").write_text("user_id,item_id,timestamp\n" + events)
        source = {"format": "table", "interactions": str(folder / "events.csv")}
        content = {
            "name": "shop",
            "store": str(folder / "store"),
            "domains": [{"name": "toys", "source": source | {"items": str(self.items)}}],
            "item_llm": {"encoder": ENCODER, "adapter": str(adapter)},
        }
        self.config.write_text(yaml.safe_dump(content))

    @property
    def items(self):
        return self.folder / "items.csv"

    def write_items(self, texts):
        self.texts = texts
        rows = "".join(f'{item},"{text}"\n' for item, text in texts.items())
        self.items.write_text("item_id,title\n" + rows)

    def command(self, *options):
        job = [sys.executable, "jobs/refresh_embeddings.py", "--config", str(self.config)]
        return [*job, "--out", str(self.out), *options]

    def run(self, *options):
        """The job in this process, on the session's Ray; its status."""
        return main(self.command(*options)[2:])

    def refresh(self, *options):
        assert self.run(*options) == 0
        return self.report()

    def report(self):
        return json.loads((self.out / "refresh.json").read_text())

    def cache(self):
        report = self.report()
        return EmbeddingCache.open(
            self.folder / "store" / "vectors", report["fingerprint"], report["dim"]
        )

    def check_vectors(self, tmp_path):
        """Every stored vector is what the encoder gives, with the adapter merged."""
        encoder = ItemEncoder.load(EncoderConfig(**ENCODER), self.adapter)
        cache, texts = self.cache(), list(self.texts.values())
        assert cache.fingerprint == encoder.fingerprint
        stored = cache.snapshot(texts, tmp_path / "snapshot").vectors
        np.testing.assert_allclose(stored, encoder.encode(texts), atol=2e-6)


def counts(report):
    names = ("new", "changed", "removed", "encoded", "reused", "quarantined")
    return tuple(report.get(name) for name in names)


@pytest.fixture
def shop(tmp_path, adapter):
    return Shop(tmp_path, adapter)


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
def test_a_refresh_costs_what_changed(shop, tmp_path):
    dry = shop.refresh("--dry-run")
    assert (dry["to_encode"], dry["dry_run"], dry["new"]) == (40, True, 40)
    assert "encoded" not in dry
    assert counts(shop.refresh()) == (40, 0, 0, 40, 0, 0)
    shop.check_vectors(tmp_path)

    unchanged = shop.refresh()
    assert counts(unchanged) == (0, 0, 0, 0, 40, 0)
    fingerprint = unchanged["fingerprint"]

    texts = dict(shop.texts)
    texts["i3"] = "a red kite"
    texts["new"] = " wooden  toy, 5 pieces"  # the text of i5
    del texts["i7"]
    shop.write_items(texts)
    report = shop.refresh("--verify", "9", "--gc")
    assert counts(report) == (1, 1, 1, 1, 38, 0)
    assert report["fingerprint"] == fingerprint
    assert report["verified"]["texts"] == 9
    assert report["verified"]["least_cosine"] >= 0.9999
    assert report["deleted"] == 2  # the text before of i3, and that of i7
    shop.check_vectors(tmp_path)


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
def test_the_static_encoder_refreshes_and_verifies_like_a_model(shop, tmp_path):
    static = ("--item-llm.encoder.base=static", "--item-llm.adapter=null", "--item-llm.lora=null")
    assert counts(shop.refresh(*static)) == (40, 0, 0, 40, 0, 0)
    report = shop.refresh(*static, "--verify", "9")
    assert counts(report) == (0, 0, 0, 0, 40, 0)
    assert report["verified"] == {"texts": 9, "least_cosine": 1.0}
    texts = list(shop.texts.values())
    stored = shop.cache().snapshot(texts, tmp_path / "snapshot").vectors
    encoder = load_encoder(EncoderConfig(base="static", max_tokens=16))
    assert (stored == encoder.encode(texts)).all()


def test_nothing_to_encode_starts_no_ray(shop, monkeypatch):
    shop.write_items({})
    monkeypatch.setattr("pipeline.refresh.connected", None)  # it must not be asked
    assert counts(shop.refresh()) == (0, 0, 0, 0, 0, 0)


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
def test_verify_finds_a_vector_that_is_not_its_texts(shop, capsys):
    shop.refresh()
    cache = shop.cache()
    texts = list(shop.texts.values())
    folder = Path(cache.folder)
    vectors = cache.snapshot(texts, shop.folder / "snapshot").vectors
    (folder / "vectors.lance").rename(shop.folder / "before.lance")
    cache = shop.cache()
    cache.commit([(texts, np.roll(vectors, 1, axis=0))])  # as a peer once shipped them
    assert shop.run("--verify", "5") == 2
    assert capsys.readouterr().err.startswith("error: the stored vector of 'wooden toy")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_while_it_encodes_it_goes_on_from_what_is_committed(shop, tmp_path):
    shop.write_items({f"i{n}": f"wooden toy, {n} pieces " + "x y z " * 4 for n in range(9000)})
    process = subprocess.Popen(
        shop.command(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    versions = shop.folder / "store" / "vectors"
    while process.poll() is None and len(list(versions.glob("*/vectors.lance/data/*.lance"))) < 1:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert subprocess.run(shop.command(), cwd=ROOT, check=False).returncode == 0
    report = shop.report()
    assert report["encoded"] + report["reused"] == 9000
    assert 0 < report["reused"] < 9000
    shop.texts = dict(list(shop.texts.items())[::50])
    shop.check_vectors(tmp_path)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_same_by_ray_job_submit(shop, workplace):
    command = ["python", *shop.command()[1:]]
    done = workplace.ray.submit(command, working_dir=ROOT, capture=True)
    assert done.returncode == 0, done.stdout
    assert counts(shop.report()) == (40, 0, 0, 40, 0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--item-llm.adapter", "null"], "item_llm.adapter is null, so a run trains the encoder"),
        (["--item-llm.adapter", "/no/such"], "not a finished item LLM adapter"),
        (["--item-llm.encoder.prompt", "x"], "it was trained with prompt ''"),
        (["--no-such"], "no-such"),
    ],
)
def test_mistakes_are_told_in_one_sentence(shop, options, message, capsys):
    assert shop.run(*options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (shop.out / "refresh.json").exists()
