"""Objectives of the item LLM's fine-tuning against each other, on one domain.

    python -m benchmarks.objectives --domain beauty --steps 300 --seeds 0 1

For the untuned encoder and for each objective and seed: the ranks of held-out pairs, NDCG@10 of the
test targets by the cosine to the last item alone, and NDCG@10 of a Hydra with text vectors and no
ids. A step encodes as many texts under either objective. No figure is held to a bar but one: the
objective that is the default is not told from the better one, by a 95% interval over the seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from benchmarks.harness import Check, finish
from item_llm import (
    FinetuningConfig,
    ItemEncoder,
    ItemLLMConfig,
    ItemPairs,
    StaticEncoder,
    finetune,
)
from item_llm.held_out import held_out_metrics
from item_llm.objective import centred
from item_llm.pairs import pairs_of_texts
from pipeline.config import RunConfig
from pipeline.corpus import Corpus
from pipeline.evaluation import EmbeddingScorer
from pipeline.history_model import HistoryModel
from pipeline.metrics import ndcg
from pipeline.pairs import PairsConfig, next_item_pairs
from pipeline.paths import data_root
from pipeline.prepare import CORPUS, make_corpus
from pipeline.progress import Progress
from pipeline.splits import assign_roles
from pipeline.stages import StageContext
from pipeline.task_data import TaskData
from pipeline.user_model_task import TaskFolders, UserModelTask
from pipeline.user_models import WEIGHTS, train_user_model
from user_model import Workers
from user_model.checkpoint import load_weights

OBJECTIVES = ("pairs", "histories")


class TextData(TaskData):
    """A task whose text vectors are in memory."""

    vectors: Tensor

    def item_texts(self) -> Tensor:
        """`vectors`."""
        return self.vectors


@dataclass(frozen=True)
class Setting:
    """One domain, its pairs, and what is tried on it.

    Attributes:
        run: the config that the domain is read with.
        corpus: the domain.
        folder: where it and the adapters are.
        pairs: of training and of held-out people.
    """

    run: RunConfig
    corpus: Corpus
    folder: Path
    pairs: tuple[ItemPairs, ItemPairs]

    @classmethod
    def prepare(cls, options: argparse.Namespace, folder: Path) -> Setting:
        """Read the domain and divide its people into training and held-out ones."""
        run = _run_config(options)
        (folder / "scratch").mkdir()
        with Progress().stage("corpus") as progress:
            make_corpus(run, data_root(), StageContext(folder, folder / "scratch", {}, progress))
        corpus = Corpus.open(folder / CORPUS)
        roles = assign_roles(corpus, run.split)
        sides = next_item_pairs(
            corpus, roles, PairsConfig(max_held_out=options.held_out), seed=0, whole_histories=True
        )
        train, held_out = (
            ItemPairs(s.first, s.second, s.domains.astype(np.int64), s.users) for s in sides
        )
        return cls(run, corpus, folder, (train, held_out))

    def tuned(
        self, objective: str, seed: int, options: argparse.Namespace
    ) -> tuple[ItemEncoder, float]:
        """An encoder after its fine-tuning, and the seconds that took."""
        settings = {
            "objective": objective,
            "max_steps": options.steps,
            "pairs_per_step": options.pairs,
            "learning_rate": options.lr,
            "temperature": options.temperature,
            "checkpoint_every": 10**6,
            "zero_stage": 1,
            "epochs": 1e6,
            "seed": seed,
        }
        llm = ItemLLMConfig(
            encoder=self.run.item_llm.encoder, finetuning=FinetuningConfig.model_validate(settings)
        )
        adapter = self.folder / f"adapter-{objective}-{seed}"
        train, held_out = self.pairs
        result = finetune(
            llm, train, held_out, self.corpus.texts, adapter, sequence_model=HistoryModel
        )
        return ItemEncoder.load(llm.encoder, adapter), result.seconds

    def measure(self, encoder: ItemEncoder | StaticEncoder, seed: int) -> dict[str, float]:
        """Held-out ranks, and NDCG@10 of the last item alone and of a Hydra."""
        vectors = torch.from_numpy(encoder.encode(self.corpus.texts))
        pairs, texts = pairs_of_texts(self.pairs[1], self.corpus.texts)
        found = held_out_metrics(encoder.encode(texts), pairs, 0.05)
        assert found is not None, "no held-out pairs"
        data = self.data(vectors, seed)
        domain = data.domains[0]
        cases = data.cases(domain, "test")
        table = centred(vectors)
        last = torch.from_numpy(cases.history[cases.offsets[1:] - 1])
        nearest = data.rank_by(EmbeddingScorer(table, table[last]), domain, cases)
        return {
            "hit@10": found.hit_at_10,
            "mrr": found.mrr,
            "ndcg@10 last item": float(ndcg(nearest, 10).mean()),
            "ndcg@10 hydra": self.ndcg(data, self.trained(data)),
        }

    def data(self, vectors: Tensor, seed: int) -> TextData:
        """The task of a Hydra that reads these vectors, [n_items, d], and no ids."""
        task = UserModelTask.of("hydra_frozen", self.corpus.domains[0].name, self.run)
        task = task.model_copy(update={"seed": seed})
        data = TextData(task, TaskFolders(corpus=self.folder / CORPUS, vectors=None))
        data.vectors = vectors
        return data

    def trained(self, data: TextData) -> Path:
        """Train the task's model; returns the file of its weights."""
        folder = Path(tempfile.mkdtemp(prefix="trained-", dir=self.folder))
        train_user_model(data, Workers(0, 1), folder, folder / "scratch", lambda *_: None)
        return folder / WEIGHTS

    def ndcg(self, data: TextData, weights: Path) -> float:
        """NDCG@10 of the test targets, by a model of these weights that reads `data`'s vectors."""
        model = data.build()
        load_weights(weights, model)
        domain = data.domains[0]
        ranks = data.rank(model, domain, data.cases(domain, "test"))
        return float(ndcg(ranks, 10).mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all; returns 0 unless the default objective is the worse one."""
    options = options_of(_parser(), arguments)
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        setting = Setting.prepare(options, Path(name))
        frozen = ItemEncoder.load(setting.run.item_llm.encoder)
        for seed in options.seeds:
            _keep(rows, "untuned", seed, 0.0, setting.measure(frozen, seed))
            for objective in OBJECTIVES:
                encoder, seconds = setting.tuned(objective, seed, options)
                _keep(rows, objective, seed, seconds, setting.measure(encoder, seed))
    return finish("objectives", [_default_is_not_the_worse(rows)], rows)


def _keep(
    rows: list[dict[str, Any]], objective: str, seed: int, seconds: float, found: dict[str, float]
) -> None:
    rows.append({"objective": objective, "seed": seed, "seconds": round(seconds, 1), **found})
    figures = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
    print(f"{objective:10} seed {seed}  {seconds:5.0f} s  {figures}", flush=True)


def _default_is_not_the_worse(rows: list[dict[str, Any]]) -> Check:
    """The upper end of the interval of what the default is ahead by, paired by seed.

    It is not a number, and fails, for a single seed: one difference says nothing of its spread.
    """

    def by_seed(objective: str) -> NDArray[np.float64]:
        return np.array([r["ndcg@10 hydra"] for r in rows if r["objective"] == objective])

    default: str = FinetuningConfig().objective
    (other,) = (objective for objective in OBJECTIVES if objective != default)
    ahead = by_seed(default) - by_seed(other)
    reach = stats.t.ppf(0.975, len(ahead) - 1) * stats.sem(ahead) if len(ahead) > 1 else np.nan
    name = f"ndcg@10 of {default} less {other}: {ahead.mean():+.4f}, and its interval's upper end"
    return Check(name, float(ahead.mean() + reach), 0, "least")


def _run_config(options: argparse.Namespace) -> RunConfig:
    source = {
        "format": "sequences",
        "path": f"amazon2014/{options.domain}",
        "platform": "amazon",
        "max_users": options.max_users,
    }
    training = {"epochs": 16, "patience": 3, "validate_every": 2, "batch_tokens": 4096}
    return RunConfig.model_validate(
        {
            "domains": [{"name": options.domain, "source": source}],
            "models": ["hydra_frozen"],
            "item_llm": {"encoder": {"base": options.base, "max_tokens": 48}},
            "user_model": {
                "layers": 1,
                "dropout": 0.4,
                "items": {"ids": False},
                "training": {**training, "lr": 3e-3, "temperature": 0.1},
            },
        }
    )


def options_of(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Read the command line: the parser's own options, and those of the setting."""
    parser.add_argument("--domain", default="beauty", help="folder below amazon2014/")
    parser.add_argument("--base", default="minilm", help="base model")
    parser.add_argument("--max-users", type=int, default=6000, help="people of the domain")
    parser.add_argument("--held-out", type=int, default=2000, help="held-out pairs at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds")
    parser.add_argument("--threads", type=int, default=1, help="threads")
    return parser.parse_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps")
    parser.add_argument("--pairs", type=int, default=64, help="pairs in a step")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--temperature", type=float, default=0.05, help="first temperature")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
