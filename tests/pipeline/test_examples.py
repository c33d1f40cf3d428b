"""The users of the report's examples: who is chosen, and what is said of them."""

import numpy as np
import pytest
import torch

from pipeline.corpus import Corpus
from pipeline.evaluation import rank_targets
from pipeline.examples import (
    TEXT_CHARS,
    TOP,
    USERS,
    choose_users,
    item,
    load_examples,
    save_examples,
    show,
)
from pipeline.histories import EvaluationCases, evaluation_cases
from pipeline.splits import SplitConfig, assign_roles

ITEMS = 30


def events(users: int, first: int = 0) -> list[tuple[str, str, int]]:
    return [
        (f"u{user}", f"i{int(number):02}", 1000 * user + time)
        for user in range(first, first + users)
        for time, number in enumerate(np.random.default_rng(user).permutation(ITEMS)[:6])
    ]


@pytest.fixture(scope="module")
def corpus(corpus_of) -> Corpus:
    return corpus_of({"books": events(40), "toys": events(25)})


def cases_of(corpus: Corpus, domain: str) -> EvaluationCases:
    roles = assign_roles(corpus, SplitConfig())
    return evaluation_cases(corpus, roles, domain, "test", 50, own_domain_only=True)


class FixedScores:
    """A model that scores by a table: float32 [n, V]."""

    def __init__(self, n: int, items: int, *, levels: int | None = None) -> None:
        draws = np.random.default_rng(5)
        scores = (
            draws.normal(size=(n, items))
            if levels is None
            else draws.integers(levels, size=(n, items))
        )
        self.scores = torch.tensor(scores, dtype=torch.float32)

    def __call__(self, cases: EvaluationCases, rows: slice) -> torch.Tensor:
        return self.scores[rows]


def saved(corpus: Corpus, domain: str, folder, *, mask_seen: bool = True, levels=None):
    cases = cases_of(corpus, domain)
    scorer = FixedScores(len(cases.targets), corpus.domain(domain).n_items, levels=levels)
    save_examples(folder, corpus, cases, scorer, mask_seen=mask_seen)
    return cases, scorer, load_examples(folder)[domain]


def test_who_is_chosen_does_not_depend_on_who_else_is_there(corpus, corpus_of):
    def chosen(corpus):
        cases = cases_of(corpus, "books")
        return [corpus.user_keys[int(cases.users[row])] for row in choose_users(corpus, cases)]

    all_users = chosen(corpus)
    assert len(all_users) == len(set(all_users)) == USERS
    fewer = corpus_of({"toys": events(30), "books": events(20, first=7)})
    among = {f"main:u{user}" for user in range(7, 27)}
    kept = [user for user in all_users if user in among]
    assert kept
    assert chosen(fewer)[: len(kept)] == kept


def test_domains_choose_their_own_users(corpus):
    first = [
        corpus.user_keys[int(cases.users[choose_users(corpus, cases)[0]])]
        for cases in (cases_of(corpus, "books"), cases_of(corpus, "toys"))
    ]
    assert first[0] != first[1]


@pytest.mark.parametrize("levels", [None, 3], ids=["distinct", "ties"])
@pytest.mark.parametrize("mask_seen", [True, False])
def test_ranks_and_top_items_are_those_of_the_evaluation(corpus, tmp_path, mask_seen, levels):
    cases, scorer, users = saved(corpus, "toys", tmp_path, mask_seen=mask_seen, levels=levels)
    domain = corpus.domain("toys")
    ranks = rank_targets(
        cases, domain.first_item, domain.n_items, scorer, model="fixed", mask_seen=mask_seen
    )
    for row, user in zip(choose_users(corpus, cases), users, strict=True):
        assert (user["best"], user["ties"]) == (ranks.best[row], ranks.ties[row])
        assert user["target"] == cases.targets[row]
        assert len(user["top"]) == len(set(user["top"])) == TOP
        if levels is None:
            assert (user["target"] in user["top"]) == (user["best"] <= TOP)
            if user["best"] <= TOP:
                assert user["top"][user["best"] - 1] == user["target"]
        seen = set(cases.seen[cases.seen_offsets[row] : cases.seen_offsets[row + 1]].tolist())
        assert not (mask_seen and seen & set(user["top"]))
        scores = scorer.scores[row][np.array(user["top"]) - domain.first_item]
        assert (scores.diff() <= 0).all()


def test_equal_inputs_give_equal_bytes(corpus, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        saved(corpus, "books", tmp_path / name)
    first, second = (tmp_path / name / "books.examples.json" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_a_small_catalogue_has_fewer_recommendations(corpus_of, tmp_path):
    small = corpus_of(
        {"few": [(f"u{u}", f"i{(u + k) % 5}", k) for u in range(9) for k in range(4)]}
    )
    cases, _, users = saved(small, "few", tmp_path)
    for row, user in zip(choose_users(small, cases), users, strict=True):
        seen = cases.seen_offsets[row + 1] - cases.seen_offsets[row]
        assert len(user["top"]) == 5 - seen


def test_the_report_takes_users_in_turn_and_gives_every_models_rank(corpus, tmp_path):
    found = {}
    for model, levels in (("hydra_joint", None), ("popularity", 3)):
        folder = tmp_path / model
        folder.mkdir()
        for domain in ("books", "toys"):
            saved(corpus, domain, folder, levels=levels)
        found[model] = load_examples(folder)
    shown = show(corpus, found, "hydra_joint", ["toys", "books"])
    assert [user["domain"] for user in shown] == ["toys", "books"] * (USERS // 2)
    assert len({(user["domain"], user["user"]) for user in shown}) == USERS
    for place, user in enumerate(shown):
        raw = found["popularity"][user["domain"]][place // 2]
        assert user["ranks"]["popularity"] == {"best": raw["best"], "ties": raw["ties"]}
        assert set(user["ranks"]) == {"hydra_joint", "popularity"}
        assert all(entry["item"].startswith("i") for entry in user["top"])


def test_the_folder_of_an_older_version_holds_none(corpus, tmp_path):
    assert load_examples(tmp_path) == {}
    assert show(corpus, {"hydra_joint": {}}, "hydra_joint", ["books", "toys"]) == []


def test_long_texts_are_cut(corpus):
    long = Corpus(**{**vars_of(corpus), "texts": ["ab " * 200] * corpus.n_items})
    text = item(long, 0)["text"]
    assert len(text) <= TEXT_CHARS
    assert text.endswith("\u2026")


def vars_of(corpus: Corpus) -> dict:
    return {name: getattr(corpus, name) for name in Corpus.__dataclass_fields__}
