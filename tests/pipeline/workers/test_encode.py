import os
import signal
from functools import partial

import numpy as np
import pytest
import ray.cloudpickle

from item_llm import EncoderConfig, ItemEncoder
from pipeline.progress import Progress
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.encode import at, encode_on_cluster, encoder_loader
from pipeline.workers.poison import encode_or_refuse

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
COMPUTE = ComputeConfig(workers=2)
DIM = 3


class Fragile:
    """Encodes a text as its length; some texts are worse than others."""

    dim = DIM

    def encode(self, texts):
        if any("kill" in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any("raise" in text for text in texts):
            raise RuntimeError("out of range\nand more lines")
        rows = [[len(text)] * DIM for text in texts]
        vectors = np.array(rows, dtype=np.float32)
        for number, text in enumerate(texts):
            if "nan" in text:
                vectors[number] = np.nan
            if "zero" in text:
                vectors[number] = 0
        return vectors


@pytest.fixture(autouse=True, scope="module")
def _sent_whole():
    """Workers cannot import this file: what it defines is sent to them as it stands."""
    import sys

    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)
    yield
    ray.cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture
def stage_progress():
    with Progress().stage("test") as progress:
        yield progress


def encoded(texts, load, progress, compute=COMPUTE):
    good, refused = {}, {}
    for batch in encode_on_cluster(texts, load, compute, progress):
        good.update(zip(batch.texts, batch.vectors, strict=True))
        refused.update(batch.refused)
    return good, refused


@pytest.mark.timeout(180)
def test_encoders_may_take_every_slot_that_ray_has(stage_progress):
    every = ComputeConfig(workers=int(ray.cluster_resources()["CPU"]))
    texts = [f"toy {n}" for n in range(600)]
    good, refused = encoded(texts, Fragile, stage_progress, every)
    assert sorted(good) == sorted(texts)
    assert not refused


@pytest.mark.faults
def test_poison_is_found_and_all_others_are_encoded(stage_progress):
    healthy = [f"toy {'x' * (n % 40)} {n}" for n in range(700)]
    poison = {
        "raise 1": "RuntimeError: out of range",
        "a nan": "its vector is not finite",
        "b zero": "its vector is all zeros",
        "c kill": "its worker died 2 times",
    }
    good, refused = encoded([*healthy[:300], *poison, *healthy[300:]], Fragile, stage_progress)
    assert refused == poison
    assert sorted(good) == sorted(healthy)
    assert all((vector == len(text)).all() for text, vector in good.items())


def test_a_real_encoder_gives_what_it_gives_without_ray(stage_progress):
    config = EncoderConfig(base="minilm", max_tokens=16)
    texts = [f"wooden train set, {n} pieces" for n in range(60)]
    encoder = ItemEncoder.load(config)
    load = encoder_loader(config, at(None), encoder.fingerprint)
    good, refused = encoded(texts, load, stage_progress)
    assert refused == {}
    got = np.stack([good[text] for text in texts])
    np.testing.assert_allclose(got, encoder.encode(texts), atol=1e-6)


def test_an_actor_whose_files_differ_from_the_drivers_encodes_nothing():
    load = encoder_loader(EncoderConfig(base="minilm"), at(None), "0" * 64)
    with pytest.raises(ValueError, match=r"has the fingerprint \w+, the driver's has 0{64}"):
        load()


def test_no_texts_start_nothing(stage_progress):
    assert (
        list(encode_on_cluster([], partial(pytest.fail, "loaded"), COMPUTE, stage_progress)) == []
    )


class NoDeaths:
    def begin(self, name):
        return 0

    def end(self, name):
        pass


@pytest.mark.parametrize("poison", [0, 3, 7])
def test_halving_asks_for_few_batches(poison):
    asked = []

    def encode(texts):
        asked.append(len(texts))
        if poison in texts:
            raise ValueError("no")
        return np.ones((len(texts), DIM), np.float32)

    vectors, reasons = encode_or_refuse(encode, list(range(8)), DIM, NoDeaths())
    assert [place for place, reason in enumerate(reasons) if reason] == [poison]
    assert reasons[poison] == "ValueError: no"
    assert len(asked) == 7  # twice for each halving of eight, and once for all
    assert (vectors.any(axis=1) == (np.arange(8) != poison)).all()
