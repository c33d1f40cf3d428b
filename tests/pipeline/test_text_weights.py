"""How much texts count is chosen for each domain on validation; a refit takes what was chosen."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from pipeline.corpus import build_corpus
from pipeline.domains import DomainConfig, build_domain
from pipeline.histories import TrainingHistories
from pipeline.metrics import ndcg
from pipeline.task_data import TaskData
from pipeline.text_weights import MULTIPLES, choose_text_multiples, multiply_texts
from pipeline.user_model_task import TaskFolders
from pipeline.user_models import TEXT_MULTIPLES, WEIGHTS, train_user_model
from pipeline.validation import Validation
from tests.pipeline.test_user_models import TRAINING, task
from user_model import Workers
from user_model.checkpoint import load_weights
from user_model.neighbours import neighbour_vectors

ITEMS = {"text_channel": True, "text_weight": 0.3, "neighbours": True, "neighbour_columns": 8}


class WithTexts(TaskData):
    """Texts of books tell which item follows in validation, those of the garden nothing."""

    def item_texts(self):
        strict = TaskData(self.task.choosing(), self.folders)
        cases = strict.cases(self.domains[0], "validation")
        pairs = np.stack([cases.history[cases.offsets[1:] - 1], cases.targets], 1)
        seams = np.arange(0, pairs.size + 1, 2)
        histories = TrainingHistories(seams, pairs.reshape(-1), cases.users)
        texts = neighbour_vectors(histories, self.domain_starts(), 12)
        books = self.domains[0].n_items
        noise = torch.randn(len(texts) - books, 12, generator=torch.Generator().manual_seed(0))
        return torch.cat([texts[:books], noise])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    domains = []
    for name in ("books", "garden"):
        source = {"format": "simulated", "catalogue": name, "population": 300, "items": 60}
        config = {"name": name, "source": source | {"share": 0.9, "mean_history": 8}}
        domain = DomainConfig.model_validate(config)
        domains.append(build_domain(domain, folder, folder / "quarantine", folder / "work"))
    build_corpus(domains, folder / "corpus")
    return TaskFolders(corpus=folder / "corpus", vectors=None)


def trained(given, folders, output):
    output.mkdir()
    data, told = WithTexts(given, folders), []
    facts = train_user_model(
        data, Workers(), output, output / "scratch", lambda *report: told.append(report)
    )
    model = data.build()
    load_weights(output / WEIGHTS, model)
    return data, model.eval(), facts, told


def figure(data, model, domain):
    return ndcg(data.rank(model, domain, data.cases(domain, "validation")), 10).mean()


def test_each_domain_gets_the_multiple_that_is_best_on_validation(folders, tmp_path):
    given = task("hydra_joint", None, items=ITEMS)
    data, model, facts, _ = trained(given, folders, tmp_path / "plain")
    assert TEXT_MULTIPLES not in facts
    figures = {}
    for before, multiple in pairwise((1.0, *MULTIPLES)):
        multiply_texts(model, data, {d.name: multiple / before for d in data.domains})
        figures[multiple] = [figure(data, model, domain) for domain in data.domains]
    expected = [max(MULTIPLES, key=lambda m: figures[m][number]) for number in range(2)]
    assert expected[0] > 1.0, "texts that tell more than they are let to"

    given = task("hydra_joint", None, items=ITEMS | {"choose_text_weight": True})
    data, chosen, facts, told = trained(given, folders, tmp_path / "chosen")
    assert facts[TEXT_MULTIPLES] == dict(zip(["books", "garden"], expected, strict=True))
    assert facts["epochs"] == TRAINING["epochs"]
    assert [figure(data, chosen, domain) for domain in data.domains] == pytest.approx(
        [figures[multiple][number] for number, multiple in enumerate(expected)], abs=1e-9
    )
    remark, figures = told[-1][3:]
    assert remark.startswith("garden: texts count")
    assert figures.values == {"by_domain/garden/text_multiple": expected[1]}


def test_the_choice_leaves_the_model_as_it_is(folders, tmp_path):
    data, model, _, _ = trained(task("hydra_joint", None, items=ITEMS), folders, tmp_path / "one")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    validation = Validation(data, Workers())
    choose_text_multiples(model, data, validation, Workers(), lambda *_: None)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_refit_takes_the_multiples_that_were_chosen_and_validates_nothing(folders, tmp_path):
    strict = task("hydra_joint", None, items=ITEMS | {"choose_text_weight": True})
    plain, chosen = strict.refitting(2), strict.refitting(2, {"books": 2.0, "garden": 0.5})
    assert plain.training_recipe() != chosen.training_recipe()
    weights = []
    for number, given in enumerate((plain, chosen)):
        _, model, facts, _ = trained(given, folders, tmp_path / str(number))
        assert "validation_ndcg@10" not in facts
        weights.append(model.items.channel.weights.detach().numpy())
    np.testing.assert_allclose(weights[1] / weights[0], [2.0, 0.5], rtol=1e-6)
