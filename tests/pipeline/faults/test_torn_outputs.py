"""Finished outputs that were torn afterwards: noticed, kept aside, made again as they were."""

import shutil

import pytest

from tests.pipeline.faults.drivers import ALL, SASREC, Driver
from tests.pipeline.faults.torn_files import TEARS, tear

pytestmark = pytest.mark.faults
# A file of each kind that matters, as a pattern below the store.
KINDS = (
    "corpus-*/manifest.json",
    "corpus-*/corpus/items.npy",
    "corpus-*/corpus/corpus.json",
    "corpus-*/data.json",
    "train.sasrec.books-*/manifest.json",
    "train.sasrec.books-*/weights/weights.safetensors",
    "train.sasrec.books-*/weights/manifest.json",
    "rank.sasrec.books-*/books.npz",
    "metrics-*/metrics.json",
)
OF_THE_LLM = (
    "item_llm-*/adapter/adapter_model.safetensors",
    "item_llm-*/adapter/manifest.json",
    "vectors-*/vectors/vectors.f32",
    "vectors-*/vectors/manifest.json",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, to be copied; by its config."""
    made = {}

    def finished(content):
        name = "-".join(content["models"])
        if name not in made:
            made[name] = Driver(tmp_path_factory.mktemp("finished") / "run", content)
            assert made[name].start() == 0
        return made[name]

    return finished


def copied(driver, folder, content):
    copy = Driver(folder, content)
    shutil.copytree(driver.store, copy.store)
    return copy


def torn_all(driver, kinds, how):
    """Tear one file of each kind; the names of the outputs that have one."""
    for kind in kinds:
        (path,) = driver.store.glob(kind)
        tear(path, how)
    return {next(driver.store.glob(kind.split("/")[0])).name for kind in kinds}


def expect_mended(driver, torn, metrics):
    assert driver.start() == 0, driver.log.read_text()
    assert driver.metrics == metrics
    aside = {path.name.removesuffix(".0") for path in (driver.store / ".damaged").iterdir()}
    assert aside == torn
    assert set(driver.made) == {name.rpartition("-")[0] for name in torn}, "only these"
    said = " ".join(driver.log.read_text().split())
    assert said.count("it was moved to") == len(torn)


@pytest.mark.parametrize(
    "how",
    ["flipped", *(pytest.param(how, marks=pytest.mark.slow) for how in ("cut", "empty", "absent"))],
)
def test_nine_files_torn_at_once_are_nine_files_made_again(tmp_path, finished, how):
    whole = finished(SASREC)
    driver = copied(whole, tmp_path / "torn", SASREC)
    expect_mended(driver, torn_all(driver, KINDS, how), whole.metrics)


@pytest.mark.slow
@pytest.mark.parametrize("how", TEARS)
@pytest.mark.parametrize("kind", KINDS + OF_THE_LLM)
def test_a_torn_file_costs_its_own_output_alone(tmp_path, finished, kind, how):
    content = ALL if kind in OF_THE_LLM else SASREC
    whole = finished(content)
    driver = copied(whole, tmp_path / "torn", content)
    expect_mended(driver, torn_all(driver, [kind], how), whole.metrics)
