"""The corpus stage: what it writes, what it says, and what it leaves behind."""

import io

import pytest
from rich.console import Console

from pipeline.config import RunConfig
from pipeline.corpus import Corpus
from pipeline.prepare import make_corpus
from pipeline.progress import Progress, StageProgress
from pipeline.stages import StageContext
from pipeline.whole_files import read_json


class Heard(StageProgress):
    """Progress that keeps what it was told."""

    def __init__(self):
        super().__init__(Progress(Console(file=io.StringIO())), "corpus")
        self.infos = []

    def update(self, done, total, unit, info=""):
        self.infos.append((done, total, info))
        super().update(done, total, unit, info)


@pytest.fixture
def context(tmp_path):
    (tmp_path / "output" / ".scratch").mkdir(parents=True)
    return StageContext(tmp_path / "output", tmp_path / "output" / ".scratch", {}, Heard())


def config_of(folder, **texts):
    """Domains that are read from CSV files of these texts."""
    domains = []
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text("user_id,item_id,timestamp\n" + text)
        source = {"format": "table", "interactions": f"{name}.csv"}
        domains.append({"name": name, "source": source})
    return RunConfig.model_validate({"domains": domains, "models": ["popularity"]})


def test_the_stage_writes_the_corpus_and_its_counts_and_nothing_else(tmp_path, context):
    config = config_of(tmp_path, a="u,x,1\nv,x,2\n", b="u,p,3\nu,q,4\n")
    facts = make_corpus(config, tmp_path, context)
    corpus = Corpus.open(context.output / "corpus")
    assert facts == {"fingerprint": corpus.fingerprint()}
    assert list(corpus.user_keys) == ["main:u", "main:v"]
    data = read_json(context.output / "data.json")
    assert [data["domains"][name]["interactions"] for name in "ab"] == [2, 2]
    assert data["shared_users"] == {"a & b": 1}
    assert {path.name for path in context.output.iterdir()} == {"corpus", "data.json", ".scratch"}
    assert list(context.scratch.iterdir()) == []


def test_it_says_how_far_it_is_within_a_domain(tmp_path, context):
    make_corpus(config_of(tmp_path, a="u,x,1\nv,x,2\n", b="u,p,3\n"), tmp_path, context)
    heard = context.progress.infos
    assert (0, 2, "a: 2 rows read") in heard
    assert (1, 2, "b: 1 rows read") in heard
    assert heard[-1] == (2, 2, "merging")
    assert [done for done, _, _ in heard] == sorted(done for done, _, _ in heard)


def test_an_error_leaves_no_work_behind_and_a_killed_run_does_no_harm(tmp_path, context):
    left = context.scratch / "domains" / "a" / "events"
    left.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"domain b: .* holds no interactions"):
        make_corpus(config_of(tmp_path, a="u,x,1\n", b=""), tmp_path, context)
    assert list(context.scratch.iterdir()) == []
    assert not (context.output / "corpus").exists()
