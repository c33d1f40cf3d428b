"""Ranks of a finished seed: kept as they were, found under the same config alone, checked."""

import numpy as np
import pytest

from pipeline.artifacts import Artifact
from pipeline.config import RunConfig
from pipeline.kept_ranks import KeptRanks, SeedRanks
from pipeline.metrics import Ranks
from pipeline.ranks_file import load_ranks, save_ranks
from pipeline.stages import StageResult

DOMAINS = ("books", "garden")
SHOPS = [{"name": name, "source": {"format": "ids", "path": f"{name}.txt"}} for name in DOMAINS]


def config(**fields):
    return RunConfig.model_validate({"domains": SHOPS} | fields)


def ranks(seed):
    rng = np.random.default_rng(seed)
    return Ranks(best=rng.integers(1, 40_000, size=500), ties=rng.integers(1, 3, size=500))


def stage(folder, name, domains):
    folder.mkdir()
    for number, domain in enumerate(domains):
        save_ranks(folder, domain, ranks(number))
    return StageResult(name, "ran", 0.1, Artifact(name, "key", folder, {}, {}), {"seconds": 100.0})


@pytest.fixture
def found(tmp_path):
    stages = [
        stage(tmp_path / "a", "rank.popularity", DOMAINS),
        stage(tmp_path / "b", "rank.sasrec.books", ["books"]),
        stage(tmp_path / "c", "rank.sasrec.garden", ["garden"]),
        stage(tmp_path / "d", "train.sasrec.garden", []),
    ]
    return SeedRanks.of({result.name: result for result in stages}, "data")


def test_what_was_kept_is_found_as_it_was(tmp_path, found):
    kept = KeptRanks(tmp_path / "kept")
    assert kept.find(config(seed=3)) is None
    kept.keep(config(seed=3), found)
    again = kept.find(config(seed=3))
    assert (again.seconds, again.data_fingerprint) == (400.0, "data")
    assert again.ranked.keys() == {"rank.popularity", "rank.sasrec"}
    for folder in again.ranked.values():
        read = load_ranks(folder)
        assert read.keys() == set(DOMAINS)
    assert np.array_equal(load_ranks(again.ranked["rank.popularity"])["garden"].best, ranks(1).best)
    assert np.array_equal(load_ranks(again.ranked["rank.sasrec"])["books"].ties, ranks(0).ties)


@pytest.mark.parametrize("other", [{"seed": 4}, {"seed": 3, "models": ["sasrec"]}])
def test_another_seed_or_config_finds_nothing(tmp_path, found, other):
    kept = KeptRanks(tmp_path / "kept")
    kept.keep(config(seed=3), found)
    assert kept.find(config(**other)) is None


@pytest.mark.parametrize("harm", ["damaged", "absent"])
def test_a_harmed_file_is_told_with_what_to_do(tmp_path, found, harm):
    kept = KeptRanks(tmp_path / "kept")
    kept.keep(config(seed=3), found)
    file = tmp_path / "kept/seed-3/sasrec/books.npz"
    if harm == "absent":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"books\.npz is absent or not the file.*remove .*seed-3"):
        kept.find(config(seed=3))


def test_a_seed_without_its_manifest_is_not_there(tmp_path, found):
    kept = KeptRanks(tmp_path / "kept")
    kept.keep(config(seed=3), found)
    (tmp_path / "kept/seed-3/manifest.json").unlink()
    assert kept.find(config(seed=3)) is None
