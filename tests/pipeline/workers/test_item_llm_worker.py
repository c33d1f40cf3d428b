"""What a worker of the item LLM's fine-tuning does, in this process and without Ray."""

import json

import pytest

from item_llm import ItemLLMConfig
from pipeline.config import RunConfig
from pipeline.prepare import CORPUS, make_corpus
from pipeline.progress import Progress
from pipeline.stages import StageContext
from pipeline.storage.site import StageFolders
from pipeline.workers.in_process import reporting_here
from pipeline.workers.item_llm import _finetune
from pipeline.workers.work import Member

SHOP = {"format": "simulated", "population": 200, "items": 40, "mean_history": 6}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    source = SHOP | {"catalogue": "books", "share": 0.8}
    run = RunConfig.model_validate({"domains": [{"name": "books", "source": source}]})
    with Progress().stage("corpus") as progress:
        make_corpus(run, folder, StageContext(folder, folder / "scratch", {}, progress))
    return run, folder / CORPUS


@pytest.mark.parametrize("objective", ["pairs", "histories"])
def test_either_objective_trains_an_adapter_from_a_corpus(prepared, tmp_path, objective):
    run, corpus = prepared
    finetuning = {"objective": objective, "pairs_per_step": 8, "history_length": 4, "max_steps": 2}
    llm = ItemLLMConfig.model_validate(
        {"encoder": {"base": "minilm", "max_tokens": 16}, "finetuning": finetuning}
    )
    kept = []
    settings = {
        "config": llm,
        "pairs": run.pairs.model_copy(update={"max_held_out": 20}),
        "split": run.split,
        "folders": StageFolders(
            tmp_path, tmp_path / "scratch", {"corpus": corpus.parent}, lambda: kept.append(1)
        ),
    }
    seen = []
    progress = Progress()
    progress.follow(lambda stage, figures: seen.append(figures.step))
    with progress.stage("item_llm") as stage, reporting_here(stage) as report:
        facts = _finetune(settings, Member(0, 1), report)
    assert seen == [1, 2]
    assert kept, "the last checkpoint is told"
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    result = json.loads((tmp_path / "finetuning.json").read_text())
    assert result["adapter_sha256"] == facts["adapter_sha256"]
    assert [point["step"] for point in result["steps"]] == [1, 2]
