"""Training and ranking one user model on a small simulated corpus, without Ray."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.architectures import architecture_of, recommender
from pipeline.config import HydraModelConfig, RunConfig
from pipeline.corpus import build_corpus
from pipeline.domains import DomainConfig, build_domain
from pipeline.evaluation import EvaluationConfig
from pipeline.examples import load_examples
from pipeline.histories import TRAIN, VALIDATION
from pipeline.ranks_file import load_ranks
from pipeline.splits import SplitConfig
from pipeline.task_data import TaskData
from pipeline.user_model_task import TaskFolders, UserModelTask
from pipeline.user_models import CURVE, WEIGHTS, rank_with_user_model, train_user_model
from user_model import Workers
from user_model.checkpoint import load_weights

TRAINING = {"epochs": 2, "negatives": 16, "batch_tokens": 512, "warmup_steps": 2}
TRAINING |= {"validate_every": 1}
SMALL = {"dim": 16, "layers": 1, "training": TRAINING}
PEERS = ("sasrec", "sasrec_bce", "mamba2rec", "hstu")
BOOKS = {"name": "books", "source": {"format": "simulated", "catalogue": "books"}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> TaskFolders:
    folder = tmp_path_factory.mktemp("corpus")
    domains = []
    for name, share in (("books", 0.9), ("garden", 0.6)):
        source = {"format": "simulated", "catalogue": name, "population": 200, "items": 40}
        config = {"name": name, "source": source | {"share": share, "mean_history": 6}}
        domain = DomainConfig.model_validate(config)
        domains.append(build_domain(domain, folder, folder / "quarantine", folder / "work"))
    build_corpus(domains, folder / "corpus")
    return TaskFolders(corpus=folder / "corpus", vectors=None)


def task(model: str, domain: str | None, *, split: str = "strict", **architecture) -> UserModelTask:
    part = "hstu" if model == "hstu_time" else model if model in PEERS else "user_model"
    config = RunConfig.model_validate({"domains": [BOOKS], part: SMALL | architecture})
    return UserModelTask(
        model=model,
        domain=domain,
        split=SplitConfig(kind=split),
        architecture=architecture_of(model, config),
        evaluation=EvaluationConfig(),
        seed=0,
    )


def trained(given: UserModelTask, folders: TaskFolders, output: Path) -> dict:
    output.mkdir()
    data = TaskData(given, folders)
    return train_user_model(data, Workers(), output, output / "scratch", lambda *_: None)


@pytest.mark.parametrize(
    ("model", "domain", "ranked"),
    [
        ("sasrec", "garden", ["garden"]),
        ("sasrec_bce", "garden", ["garden"]),
        ("mamba2rec", "garden", ["garden"]),
        ("hstu", "garden", ["garden"]),
        ("hstu_time", "garden", ["garden"]),
        ("hydra_ids", "books", ["books"]),
        ("hydra_time", "books", ["books"]),
        ("hydra_joint", None, ["books", "garden"]),
        ("hydra_domains", None, ["books", "garden"]),
    ],
)
def test_a_model_is_trained_saved_and_ranks_its_domains(model, domain, ranked, folders, tmp_path):
    fields = {
        "hydra_time": {"time_gaps": True},
        "hydra_domains": {
            # Ids alone: what reads texts is left out.
            "items": dict.fromkeys(
                ["domain_embedding", "domain_projections", "text_channel"], True
            ),
            "training": TRAINING | {"other_domains_share": 0.5},
        },
    }.get(model, {})
    names = {"hydra_time": "hydra_ids", "hydra_domains": "hydra_joint"}
    given = task(names.get(model, model), domain, **fields)
    facts = trained(given, folders, tmp_path / "train")
    assert facts["epochs"] == 2
    assert facts["parameters"]["total"] > facts["parameters"]["non_embedding"] > 0
    curve = json.loads((tmp_path / "train" / CURVE).read_text())
    assert [point["epoch"] for point in curve] == [1, 2]
    assert all(0 <= point["ndcg@10"] <= 1 for point in curve)
    data = TaskData(given, folders)
    (tmp_path / "rank").mkdir()
    rank_with_user_model(data, tmp_path / "train" / WEIGHTS, tmp_path / "rank")
    examples = load_examples(tmp_path / "rank")
    assert set(examples) == set(ranked)
    assert all(len(users) == 10 for users in examples.values())
    found = load_ranks(tmp_path / "rank")
    assert sorted(found) == ranked
    for name, ranks in found.items():
        info = data.corpus.domain(name)
        assert len(ranks) == len(data.cases(info, "test").targets)
        assert (ranks.best >= 1).all()
        assert (ranks.best + ranks.ties - 1 <= info.n_items).all()


@pytest.mark.parametrize(
    "split",
    [{"cold_items": 0.3}, {"train_people": {"garden": 0.0}}],
    ids=["cold items", "new domain"],
)
def test_what_the_split_keeps_from_training_is_not_learned(split, folders, tmp_path):
    given = task("hydra_joint", None).model_copy(update={"split": SplitConfig(**split)})
    trained(given, folders, tmp_path / "train")
    data = TaskData(given, folders)
    fresh, model = data.build(), data.build()
    load_weights(tmp_path / "train" / WEIGHTS, model)
    learned = np.unique(data.corpus.items[data.roles == TRAIN])
    moved = (fresh.items.ids != model.items.ids).any(1).nonzero().ravel().numpy()
    # Neither as targets nor as negatives: the rows of the others are as they were drawn.
    assert np.array_equal(moved, learned)
    assert 0 < len(learned) < data.n_items
    (tmp_path / "rank").mkdir()
    rank_with_user_model(data, tmp_path / "train" / WEIGHTS, tmp_path / "rank")
    usual = TaskData(task("hydra_joint", None), folders)
    for domain in data.domains:
        asked = data.cases(domain, "test")
        assert np.array_equal(asked.targets, usual.cases(domain, "test").targets)
        assert len(load_ranks(tmp_path / "rank")[domain.name]) == len(asked.targets)


def test_training_beats_the_fresh_model(folders, tmp_path):
    given = task("hydra_ids", "books", training=TRAINING | {"epochs": 25, "lr": 1e-2})
    facts = trained(given, folders, tmp_path / "train")
    data = TaskData(given, folders)
    domain = data.domains[0]
    cases = data.cases(domain, "validation")
    from pipeline.metrics import ndcg

    fresh = ndcg(data.rank(data.build(), domain, cases), 10).mean()
    assert facts["validation_ndcg@10"] > 1.3 * fresh


def test_the_same_task_gives_the_same_weights(folders, tmp_path):
    given = task("hydra_joint", None)
    weights = []
    for name in ("one", "two"):
        trained(given, folders, tmp_path / name)
        weights.append((tmp_path / name / WEIGHTS / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_a_refit_trains_on_the_validation_events_for_as_many_epochs_as_it_is_told(
    folders, tmp_path
):
    given = task("sasrec", "books", split="refit", training=TRAINING | {"epochs": 3})
    facts = trained(given, folders, tmp_path / "train")
    data = TaskData(given, folders)
    assert (data.roles == VALIDATION).sum() == 0
    strict = TaskData(task("sasrec", "books"), folders)
    assert (data.roles == TRAIN).sum() > (strict.roles == TRAIN).sum()
    curve = json.loads((tmp_path / "train" / CURVE).read_text())
    assert [point["ndcg@10"] for point in curve] == [None] * 3
    assert (facts["epochs"], "validation_ndcg@10" in facts) == (3, False)


def test_joint_histories_interleave_only_when_told_to(folders):
    apart = TaskData(task("hydra_joint", None), folders)
    together = TaskData(task("hydra_joint", None, interleave=True), folders)
    books = apart.corpus.domain("books")
    own = np.arange(books.first_item, books.first_item + books.n_items)
    assert np.isin(apart.cases(books, "test").history, own).all()
    assert not np.isin(together.cases(books, "test").history, own).all()
    assert np.array_equal(apart.cases(books, "test").targets, together.cases(books, "test").targets)


def test_a_model_alone_counts_its_items_from_zero(folders):
    alone = TaskData(task("sasrec", "garden"), folders)
    garden = alone.corpus.domain("garden")
    assert alone.first_item == garden.first_item > 0
    assert alone.domain_starts().tolist() == [0, garden.n_items]
    joint = TaskData(task("hydra_joint", None), folders)
    assert joint.domain_starts().tolist() == joint.corpus.domain_starts.tolist()


def test_recipes_name_what_decides_the_weights_and_nothing_else():
    base = task("hydra_joint", None)
    joint = task("hydra_joint", None, joint={"epochs": 5})
    alone = task("hydra_ids", "books", joint={"epochs": 5})
    assert base.training_recipe() != joint.training_recipe()
    assert alone.training_recipe() == task("hydra_ids", "books").training_recipe()
    wetter = task("hydra_joint", None, joint={"dropout": 0.4})
    assert wetter.training_recipe() == task("hydra_joint", None, dropout=0.4).training_recipe()
    assert base.training_recipe() != wetter.training_recipe()
    other = base.model_copy(update={"evaluation": EvaluationConfig(ks=(5, 10))})
    assert other.training_recipe() == base.training_recipe()


def test_a_field_that_came_later_changes_no_recipe_until_it_is_used():
    """Or what was trained under an older version would be trained again."""
    base = task("hydra_ids", "books").training_recipe()
    assert "history_mean" not in base["architecture"]
    assert task("hydra_ids", "books", history_mean=False).training_recipe() == base
    assert task("hydra_ids", "books", history_mean=True).training_recipe() != base


def test_times_reach_the_model_that_reads_them_and_no_other(folders):
    given = (task("hydra_ids", "garden", time_gaps=True), task("hstu_time", "garden"))
    timed, other = (TaskData(each, folders) for each in given)
    plain = TaskData(task("hstu", "garden"), folders)
    assert other.reads_times
    cases = timed.cases(timed.domains[0], "test")
    assert plain.cases(plain.domains[0], "test").times is None
    number = timed.corpus.domain_number("garden")
    for row, user in enumerate(cases.users):
        mine = slice(timed.corpus.offsets[user], timed.corpus.offsets[user + 1])
        own = timed.corpus.event_domains[mine] == number
        known = slice(cases.offsets[row], cases.offsets[row + 1])
        times = timed.corpus.timestamps[mine][own][:-1]  # the last one is the target's
        assert cases.times[known].tolist() == times[-len(cases.history[known]) :].tolist()


def test_a_model_of_times_refuses_a_domain_without_them(tmp_path):
    (tmp_path / "ids.txt").write_text("".join(f"{u} 1 2 3 {u % 5 + 4}\n" for u in range(1, 30)))
    source = {"format": "ids", "path": str(tmp_path / "ids.txt")}
    domain = DomainConfig.model_validate({"name": "books", "source": source})
    built = build_domain(domain, tmp_path, tmp_path / "quarantine", tmp_path / "work")
    build_corpus([built], tmp_path / "corpus")
    folders = TaskFolders(corpus=tmp_path / "corpus", vectors=None)
    with pytest.raises(ValueError, match=r"hstu_time reads .* the domain books has none"):
        TaskData(task("hstu_time", "books"), folders)
    with pytest.raises(ValueError, match=r"hydra_ids reads .* user_model.time_gaps: false"):
        TaskData(task("hydra_ids", "books", time_gaps=True), folders)


def test_scores_are_cosines_unless_told_otherwise(folders):
    for model, chosen, expected in (
        ("hydra_ids", {}, True),
        ("hydra_ids", {"normalise": False}, False),
        ("sasrec_bce", {}, False),
    ):
        built = TaskData(task(model, "books", **chosen), folders).build()
        lengths = built.item_vectors(torch.arange(5)).norm(dim=1)
        assert bool(torch.allclose(lengths, torch.ones(5))) is expected, model


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("ids", [True, "from_text", "from_histories"])
def test_text_reaches_the_item_table_as_the_config_says(ids, text):
    texts = torch.randn(40, 12)
    items = {"ids": ids, "text": text}
    config = HydraModelConfig.model_validate(SMALL | {"items": items})

    def table(model, vectors):
        torch.manual_seed(3)
        return recommender(model, config, 40, vectors).items

    reads, alone = table("hydra_frozen", texts), table("hydra_ids", None)
    assert (reads.text_projection is not None) == text
    # Ids are drawn first: they are the same but where they begin from the text.
    assert torch.equal(reads.ids, alone.ids) == (ids != "from_text")
    for table_of in (reads, alone):
        assert table_of.ids_from_histories == (ids == "from_histories")
    assert alone.text_projection is None
