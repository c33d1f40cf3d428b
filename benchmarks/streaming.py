"""Users event by event: equality with evaluation, then the cost of an event.

    python -m benchmarks.streaming [--text-channel] [--threads 1] [--repetitions 7]

A user model of the size of configs/amazon2014-small.yaml is trained for an epoch on simulated
histories of 60 events in the mean, none cut (split.max_history: null), and exported. Asked first:
users fed event by event through the bundle get evaluation's scores and its ten best items. Then:

* an event of one user whose history has 10, 1,000 or 10,000 events;
* the same against SASRec of that size, which reads a window of 200 again;
* events a second of 256 users at a time;
* bytes of a state, and what float16 changes.

An event is all of `Recommender.update`: ids to rows, rows to vectors, the model, the seen items.
SASRec's time is the model's alone. Times are of the processor.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import Check, Timing, alternate, finish, median_ratio
from benchmarks.streaming_run import DOMAIN, Asked, small_run
from pipeline import Recommender
from pipeline.recommender import Recommendation, UserState
from user_model import SASRec, SASRecConfig

HISTORIES = (10, 1_000, 10_000)
BATCH, WINDOW = 256, 200
_K = 10
_TIE = 1e-6  # scores that differ less are of one rank
_CALLS = 200  # events of a repetition


def main(arguments: Sequence[str] | None = None) -> int:
    """Check equality, measure, print; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    with small_run(
        users=options.users, items=options.items, text_channel=options.text_channel
    ) as asked:
        states = _streamed(asked)
        checks = _equality(asked, states)
        if not all(check.ok for check in checks):
            return finish("streaming", checks, [])  # the time of another result means nothing
        rows: list[dict[str, Any]] = []
        checks += _one_user(asked.recommender, options.repetitions, rows)
        checks += _batches(asked.recommender, options.repetitions, rows)
        checks += _sizes(asked, states, rows)
    return finish("streaming", checks, rows)


def _streamed(asked: Asked) -> UserState:
    """All users from nothing to the end of their histories, an event of each at a time."""
    recommender, histories = asked.recommender, asked.histories
    longest_first = sorted(range(len(histories)), key=lambda user: -len(histories[user]))
    state, ended = recommender.start(DOMAIN, len(histories)), []
    for number in range(len(histories[longest_first[0]])):
        going_on = sum(len(history) > number for history in histories)
        if going_on < state.n_users:
            ended.append(state.select(range(going_on, state.n_users)))
            state = state.select(range(going_on))
        items = [histories[user][number] for user in longest_first[:going_on]]
        state = recommender.update_many(state, items)
    in_turn = UserState.join([state, *reversed(ended)])
    return in_turn.select(np.argsort(longest_first).tolist())


def _equality(asked: Asked, states: UserState) -> list[Check]:
    catalogue = asked.recommender.catalogue(DOMAIN)
    everything = asked.recommender.recommend_many(states, len(catalogue), exclude_seen=False)
    worst = max(
        float(np.abs(found.scores - asked.scores[user, catalogue.rows(found.item_ids)]).max())
        for user, found in enumerate(everything)
    )
    top = asked.recommender.recommend_many(states, _K)
    same = sum(_is_top(asked, user, found) for user, found in enumerate(top))
    n = len(top)
    return [
        Check("scores, streamed - evaluation: largest difference", worst, 1e-4, "most"),
        Check(f"users of {n:,} with evaluation's ten best, ties apart", same, n, "least"),
    ]


def _is_top(asked: Asked, user: int, found: Recommendation) -> bool:
    """Whether these are the ten that evaluation's scores put first among unseen items."""
    catalogue = asked.recommender.catalogue(DOMAIN)
    scores_V = asked.scores[user].copy()
    scores_V[catalogue.rows(asked.histories[user])] = -np.inf
    best = np.sort(scores_V)[::-1][: len(found.item_ids)]
    mine: NDArray[np.float32] = scores_V[catalogue.rows(found.item_ids)]
    return len(found.item_ids) == _K and bool((np.abs(best - mine) <= _TIE).all())


def _one_user(
    recommender: Recommender, repetitions: int, rows: list[dict[str, Any]]
) -> list[Check]:
    ids = recommender.catalogue(DOMAIN).ids(range(len(recommender.catalogue(DOMAIN))))
    rng = np.random.default_rng(0)

    def updates(length: int) -> Callable[[], None]:
        history = [ids[row] for row in rng.integers(0, len(ids), length)]
        state = recommender.state_of(DOMAIN, history)

        def run() -> None:
            for number in range(_CALLS):
                recommender.update(state, ids[number])

        return run

    rivals = {f"history {length:,}": updates(length) for length in HISTORIES}
    rivals["SASRec"] = _sasrec(recommender, 1, _CALLS // 10)
    seconds = alternate(rivals, repetitions, clock=time.process_time)
    seconds = {
        name: [s / (_CALLS // 10 if name == "SASRec" else _CALLS) for s in found]
        for name, found in seconds.items()
    }
    _tell("one user", seconds, 1, rows)
    shortest, *_, longest = (f"history {length:,}" for length in HISTORIES)
    flat = median_ratio(seconds[longest], seconds[shortest])
    faster = median_ratio(seconds["SASRec"], seconds[longest])
    return [
        Check("one user: an event after 10,000 / after 10", flat, 1.1, "most"),
        Check(f"one user: SASRec at window {WINDOW} / an event", faster, 10.0, "least"),
    ]


def _batches(recommender: Recommender, repetitions: int, rows: list[dict[str, Any]]) -> list[Check]:
    catalogue = recommender.catalogue(DOMAIN)
    items = catalogue.ids(np.random.default_rng(0).integers(0, len(catalogue), BATCH))
    states = recommender.states_of(DOMAIN, [items[:20]] * BATCH)
    rivals = {
        "update_many": lambda: recommender.update_many(states, items),
        "SASRec": _sasrec(recommender, BATCH, 1),
    }
    seconds = alternate(rivals, repetitions, clock=time.process_time)
    _tell(f"{BATCH} users", seconds, BATCH, rows)
    rate = BATCH / Timing.of(seconds["update_many"]).median
    faster = median_ratio(seconds["SASRec"], seconds["update_many"])
    return [
        Check(f"events a second, {BATCH} users at a time", rate, 20_000, "least"),
        Check(f"{BATCH} users: SASRec at window {WINDOW} / an event", faster, 10.0, "least"),
    ]


def _sasrec(recommender: Recommender, users: int, calls: int) -> Callable[[], None]:
    """Whole windows through a SASRec of the same width and depth."""
    stream = recommender.start(DOMAIN).model
    dim, layers = stream.last.shape[1], len(stream.hydra.scans)
    model = SASRec(SASRecConfig(dim=dim, layers=layers, max_positions=WINDOW)).eval()
    vectors_Td = torch.randn(users * WINDOW, dim)
    seams = torch.arange(0, users * WINDOW + 1, WINDOW)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(calls):
                model(vectors_Td, seams)

    return run


def _sizes(asked: Asked, states: UserState, rows: list[dict[str, Any]]) -> list[Check]:
    """Bytes of a state in both types, and what rounding it to float16 changes."""
    recommender, fixed = asked.recommender, states.model.to_dict()
    whole = states.model.bytes_per_user
    half = sum(
        t.shape[1:].numel() * (2 if t.is_floating_point() else t.element_size())
        for t in fixed.values()
    )
    rounded = UserState.from_bytes(states.to_bytes("float16"), recommender)
    everything = len(recommender.catalogue(DOMAIN))
    exact, near = (_scores(recommender, one, everything) for one in (states, rounded))
    top = recommender.recommend_many(rounded, _K)
    row = {
        "state_bytes": whole,
        "state_bytes_float16": half,
        "float16: largest difference of a score": float(np.abs(exact - near).max()),
        "float16: users with the same ten best": sum(
            _is_top(asked, user, found) for user, found in enumerate(top)
        ),
        "users": states.n_users,
        "ndcg@10": _ndcg(asked, recommender.recommend_many(states, _K)),
        "float16: ndcg@10": _ndcg(asked, top),
    }
    rows.append(row)
    for name, value in row.items():
        print(f"{name:42} {value:,.6g}")
    return [
        Check("bytes of a state, float32, without seen items", whole, 32_768, "most"),
        Check("float16 / float32", half / whole, 0.51, "most"),
    ]


def _scores(recommender: Recommender, states: UserState, k: int) -> NDArray[np.float32]:
    """Scores [n, V] by row."""
    catalogue = recommender.catalogue(DOMAIN)
    scores = np.empty((states.n_users, k), dtype=np.float32)
    for user, found in enumerate(recommender.recommend_many(states, k, exclude_seen=False)):
        scores[user, catalogue.rows(found.item_ids)] = found.scores
    return scores


def _ndcg(asked: Asked, found: Sequence[Recommendation]) -> float:
    gains = []
    for target, one in zip(asked.targets, found, strict=True):
        item = asked.recommender.catalogue(DOMAIN).id(int(target))
        place = one.item_ids.index(item) if item in one.item_ids else None
        gains.append(0.0 if place is None else 1.0 / np.log2(place + 2))
    return float(np.mean(gains))


def _tell(
    what: str, seconds: dict[str, list[float]], events: int, rows: list[dict[str, Any]]
) -> None:
    for name, found in seconds.items():
        timing = Timing.of(found)
        low, middle, high = (1e6 * s for s in (timing.low, timing.median, timing.high))
        print(f"{what:10} {name:16} {middle:10.1f} us ({low:.1f} .. {high:.1f})")
        rows.append(
            {
                **{"users": events, "form": name, "cpu_seconds": timing.median},
                **{"low": timing.low, "high": timing.high},
            }
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--users", type=int, default=1_000, help="simulated people")
    parser.add_argument("--items", type=int, default=2_000, help="of the simulated catalogue")
    parser.add_argument(
        "--text-channel", action="store_true", help="with user_model.items.text_channel"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=7)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
