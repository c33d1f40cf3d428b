import multiprocessing
import random
import signal
import time

import numpy as np
import pytest

from item_llm.cache import EmbeddingCache
from item_llm.item_keys import Catalogue
from item_llm.refresh import CatalogueRefresh, Encoded
from item_llm.text_keys import keys_of

FINGERPRINT = "a" * 64
DIM = 4
START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["item_llm.refresh", "lance"])


def vectors_of(texts):
    seeds = (int.from_bytes(text.encode()[-8:], "little") for text in texts)
    rows = [np.random.default_rng(seed).standard_normal(DIM) for seed in seeds]
    return np.array(rows, dtype=np.float32).reshape(-1, DIM)


class Stub:
    """Batches of three; texts with `poison` are refused."""

    def __init__(self):
        self.seen = []

    def __call__(self, texts):
        self.seen += texts
        for start in range(0, len(texts), 3):
            block = texts[start : start + 3]
            good = [text for text in block if "poison" not in text]
            refused = [(text, "not finite") for text in block if "poison" in text]
            yield Encoded(good, vectors_of(good), refused)


def catalogue(**domains):
    names = tuple(domains)
    rows = [(n, i, t) for n, name in enumerate(names) for i, t in domains[name].items()]
    of, ids, texts = zip(*rows, strict=True) if rows else ((), (), ())
    return Catalogue(names, np.array(of, np.int32), list(ids), list(texts))


@pytest.fixture
def place(tmp_path):
    return tmp_path / "vectors"


def refreshed(place, wanted, encode=None):
    work = CatalogueRefresh(EmbeddingCache.open(place, FINGERPRINT, DIM))
    plan = work.plan(wanted)
    done = work.run(wanted, plan, encode or Stub())
    changes = plan.changes
    counts = (len(changes.new), len(changes.changed), len(changes.removed))
    return counts, (done.encoded, plan.reused), done


def keys_there(place):
    work = CatalogueRefresh(EmbeddingCache.open(place, FINGERPRINT, DIM))
    return set(work.items.keys().to_pylist())


def keys(*texts):
    return set(keys_of(FINGERPRINT, texts).to_pylist())


def test_new_changed_and_removed_items_and_only_new_texts_are_encoded(place):
    encode = Stub()
    first = catalogue(toys={"1": "train", "2": "doll", "3": " train"}, books={"1": "doll"})
    assert refreshed(place, first, encode)[:2] == ((4, 0, 0), (2, 0))
    assert sorted(encode.seen) == ["doll", "train"]
    assert refreshed(place, first, encode)[:2] == ((0, 0, 0), (0, 2))
    second = catalogue(toys={"1": "train", "2": "kite", "4": "doll"}, books={"1": "doll"})
    assert refreshed(place, second, encode)[:2] == ((1, 1, 1), (1, 2))
    assert sorted(encode.seen) == ["doll", "kite", "train"]
    assert keys_there(place) == keys("train", "kite", "doll")


def test_a_removed_item_that_comes_back_is_new_and_costs_nothing(place):
    both = catalogue(toys={"1": "train", "2": "doll"})
    refreshed(place, both)
    assert refreshed(place, catalogue(toys={"1": "train"}))[:2] == ((0, 0, 1), (0, 1))
    assert refreshed(place, catalogue(toys={"1": "train"}))[0] == (0, 0, 0)
    assert refreshed(place, both)[:2] == ((1, 0, 0), (0, 2))


def test_other_domains_are_left_alone(place):
    refreshed(place, catalogue(toys={"1": "train"}, books={"1": "doll"}))
    assert refreshed(place, catalogue(toys={"1": "kite"}))[0] == (0, 1, 0)
    assert refreshed(place, catalogue(books={"1": "doll"}))[0] == (0, 0, 0)
    assert refreshed(place, catalogue(toys={}))[0] == (0, 0, 1)
    assert keys_there(place) == keys("doll")


def test_a_plan_writes_nothing(place):
    work = CatalogueRefresh(EmbeddingCache.open(place, FINGERPRINT, DIM))
    plan = work.plan(catalogue(toys={"1": "train", "2": " train "}))
    assert (plan.texts, plan.reused) == (["train"], 0)
    assert len(work.cache) == 0
    assert work.plan(catalogue(toys={"1": "train"})).texts == ["train"]


def test_poison_is_quarantined_by_item_and_asked_again_the_next_time(place):
    texts = {"1": "train", "2": "poison  a", "3": "poison b", "4": "poison a"}
    _, counts, done = refreshed(place, catalogue(toys=texts))
    assert counts == (1, 0)
    assert done.quarantined == [
        {"item": "toys/2", "text": "poison a", "reason": "not finite"},
        {"item": "toys/3", "text": "poison b", "reason": "not finite"},
        {"item": "toys/4", "text": "poison a", "reason": "not finite"},
    ]
    changes, counts, done = refreshed(place, catalogue(toys=texts))
    assert (changes, counts, len(done.quarantined)) == ((3, 0, 0), (0, 1), 3)


def test_an_item_whose_new_text_is_poison_loses_the_vector_of_its_old_one(place):
    refreshed(place, catalogue(toys={"1": "train", "2": "doll"}))
    assert refreshed(place, catalogue(toys={"1": "poison", "2": "doll"}))[0] == (0, 1, 0)
    assert keys_there(place) == keys("doll")
    assert refreshed(place, catalogue(toys={"1": "kite", "2": "doll"}))[:2] == ((1, 0, 0), (1, 1))


def test_garbage_is_what_no_item_has_and_no_run_trained_on(place, tmp_path):
    refreshed(place, catalogue(toys={"1": "train", "2": "doll"}))
    cache = EmbeddingCache.open(place, FINGERPRINT, DIM)
    cache.tag("run")
    refreshed(place, catalogue(toys={"1": "kite"}))
    work = CatalogueRefresh(EmbeddingCache.open(place, FINGERPRINT, DIM))
    removed, freed = work.collect_garbage()
    assert removed == 2
    assert freed > 0
    assert work.cache.missing(["train", "doll", "kite"]) == ["train", "doll"]
    old = work.cache.snapshot(["train", "doll"], tmp_path / "s", tag="run")
    np.testing.assert_array_equal(old.vectors, vectors_of(["train", "doll"]))
    assert work.collect_garbage()[0] == 0


def test_stored_vectors_by_key(place):
    refreshed(place, catalogue(toys={"1": "train", "2": "doll", "3": "kite"}))
    cache = EmbeddingCache.open(place, FINGERPRINT, DIM)
    got = cache.vectors(keys_of(FINGERPRINT, ["kite", "train"]))
    np.testing.assert_array_equal(got, vectors_of(["kite", "train"]))
    with pytest.raises(ValueError, match="1 of 2 keys have no vector"):
        cache.vectors(keys_of(FINGERPRINT, ["kite", "drum"]))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Catalogue(("toys",), np.zeros(2, int), ["7", "7"], ["a", "b"]), "'toys/7' is there twice"),
        (Catalogue(("a/b",), np.zeros(1, int), ["7"], ["a"]), "'a/b' holds a `/`"),
    ],
)
def test_a_catalogue_that_cannot_be_told_apart_is_refused(place, wanted, message):
    with pytest.raises(ValueError, match=message):
        refreshed(place, wanted)


def day(number):
    """The catalogue of a day: forty items, of which a tenth has another text each day."""
    return catalogue(
        toys={str(i): f"toy {i} {max(0, number - (i + number) % 10)}" for i in range(40)}
    )


def refresh_until_killed(place, told, first):
    told.send(-1)
    for number in range(first, 1_000_000):
        refreshed(place, day(number))
        told.send(number)
        if number % 5 == 4:
            CatalogueRefresh(EmbeddingCache.open(place, FINGERPRINT, DIM)).collect_garbage()


@pytest.mark.faults
@pytest.mark.parametrize(
    "kills", [6, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_kill_9_at_any_moment_of_a_refresh(place, tmp_path, kills):
    draw, last, pace = random.Random(kills), -1, None
    for _ in range(kills):
        told, tell = START.Pipe(duplex=False)
        process = START.Process(target=refresh_until_killed, args=(place, tell, last + 1))
        process.start()
        tell.close()
        assert told.recv() == -1
        began = time.monotonic()
        whole = draw.randint(0, 2) if pace else 1
        for _ in range(whole):
            last = told.recv()
        if whole:
            pace = (time.monotonic() - began) / whole  # of a refresh, here and now
        time.sleep(draw.uniform(0, 1.5 * pace))  # somewhere in the next one
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        with told:
            while True:
                try:
                    last = told.recv()
                except (EOFError, OSError):
                    break
        cache = EmbeddingCache.open(place, FINGERPRINT, DIM)
        items = CatalogueRefresh(cache).items
        assert cache.absent(items.keys()).size == 0, "an item leads to no vector"
        if last >= 0:
            done = {key for number in (last, last + 1) for key in keys(*day(number).texts)}
            assert set(items.keys().to_pylist()) <= done, "an item has a text of days ago"
    assert last >= kills // 2
    wanted = day(last + 1)
    refreshed(place, wanted)
    cache = EmbeddingCache.open(place, FINGERPRINT, DIM)
    snapshot = cache.snapshot(wanted.texts, tmp_path / "s")
    np.testing.assert_array_equal(snapshot.vectors, vectors_of(wanted.texts))
