"""A few users of each domain, with what a model recommends to them: figures with faces.

The users are chosen by a fixed hash of domain and user, before any model is asked, so that no
luck and no taste of ours decides who is shown. A rank stage writes DOMAIN.examples.json beside
its ranks; `show` turns these, which hold global item positions, into texts for the report.

Legend: n users (one target each), V items of the domain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.corpus import Corpus
from pipeline.evaluation import Scorer
from pipeline.histories import EvaluationCases
from pipeline.stable_hash import hash_text, hash_texts, mixed
from pipeline.whole_files import read_json, write_json

USERS = 10  # of each domain, and in the report at most
TOP = 10  # recommendations of a user
LATEST = 10  # events of a history that are shown
TEXT_CHARS = 160  # an item's text is cut after these
_SUFFIX = ".examples.json"


def choose_users(corpus: Corpus, cases: EvaluationCases) -> NDArray[np.int64]:
    """Rows of the cases whose users have the smallest hash of (domain, user key), in that order.

    Whether a user is chosen does not depend on who else is there, or on the order of anything.
    """
    keys = (corpus.user_keys[int(user)] for user in cases.users)
    hashes = mixed(hash_text(cases.domain), hash_texts(keys))
    return np.argsort(hashes, kind="stable")[:USERS]


def save_examples(
    folder: Path, corpus: Corpus, cases: EvaluationCases, scorer: Scorer, *, mask_seen: bool
) -> None:
    """Write DOMAIN.examples.json: history, target, rank and top items of the chosen users.

    Args:
        folder: where the ranks of the same model are written.
        corpus: which the cases are of.
        cases: all test cases of the domain.
        scorer: the model.
        mask_seen: leave seen items out of the candidates, as the ranks do.
    """
    users = [
        _example(corpus, cases, int(row), scorer, mask_seen=mask_seen)
        for row in choose_users(corpus, cases)
    ]
    write_json(folder / f"{cases.domain}{_SUFFIX}", {"users": users})


def load_examples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What `save_examples` wrote into a folder, by domain; empty for an older version's folder."""
    return {
        path.name.removesuffix(_SUFFIX): read_json(path)["users"]
        for path in sorted(folder.glob(f"*{_SUFFIX}"))
    }


def show(
    corpus: Corpus,
    found: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
    model: str,
    domains: Sequence[str],
) -> list[dict[str, Any]]:
    """The users of the report, at most `USERS`: of each domain the first, then each second ...

    Args:
        corpus: for ids and texts.
        found: model -> domain -> its examples, by `load_examples`.
        model: whose recommendations are shown; of the others, the target's rank.
        domains: in the order of the turns.

    Returns:
        For each user `domain`, `user`, `history` (the latest, oldest first), `history_events`,
        `target`, `top`, and `ranks`, by model; an item is {"domain", "item", "text"}.
    """
    places = (
        [(domain, place) for place in range(len(found[model].get(domain, ())))]
        for domain in domains
    )
    turns = filter(None, chain.from_iterable(zip_longest(*places)))
    return [_shown(corpus, found, model, *turn) for turn in islice(turns, USERS)]


def item(corpus: Corpus, position: int) -> dict[str, str]:
    """An item as readers see it: its domain, its id, and its text, cut at `TEXT_CHARS`."""
    number = int(np.searchsorted(corpus.domain_starts, position, side="right")) - 1
    text = corpus.texts[position]
    return {
        "domain": corpus.domains[number].name,
        "item": corpus.item_ids[position],
        "text": text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 1].rstrip() + "\u2026",
    }


def _example(
    corpus: Corpus, cases: EvaluationCases, row: int, scorer: Scorer, *, mask_seen: bool
) -> dict[str, Any]:
    first_item = corpus.domain(cases.domain).first_item
    target = int(cases.targets[row])
    with torch.inference_mode():
        scores_V = scorer(cases, slice(row, row + 1))[0].cpu().double().numpy()
    candidates_V = np.ones(len(scores_V), dtype=bool)
    if mask_seen:  # `seen` never holds the target
        seen = cases.seen[cases.seen_offsets[row] : cases.seen_offsets[row + 1]]
        candidates_V[seen - first_item] = False
    goal = scores_V[target - first_item]
    best_first = np.argsort(-np.where(candidates_V, scores_V, -np.inf), kind="stable")
    history = cases.history[cases.offsets[row] : cases.offsets[row + 1]]
    return {
        "user": corpus.user_keys[int(cases.users[row])],
        "history": history[-LATEST:].tolist(),
        "history_events": len(history),
        "target": target,
        "best": 1 + int((scores_V[candidates_V] > goal).sum()),
        "ties": int((scores_V[candidates_V] == goal).sum()),
        "top": (best_first[: min(TOP, int(candidates_V.sum()))] + first_item).tolist(),
    }


def _shown(
    corpus: Corpus,
    found: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
    model: str,
    domain: str,
    place: int,
) -> dict[str, Any]:
    example = found[model][domain][place]
    return {
        "domain": domain,
        "user": example["user"],
        "history": [item(corpus, position) for position in example["history"]],
        "history_events": example["history_events"],
        "target": item(corpus, example["target"]),
        "top": [item(corpus, position) for position in example["top"]],
        "ranks": {
            other: {key: by_domain[domain][place][key] for key in ("best", "ties")}
            for other, by_domain in _others(found, domain)
        },
    }


def _others(
    found: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], domain: str
) -> Iterator[tuple[str, Mapping[str, Sequence[Mapping[str, Any]]]]]:
    return ((model, by_domain) for model, by_domain in found.items() if domain in by_domain)
