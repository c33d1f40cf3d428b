"""One text that cannot be encoded must not stop the million others: find it, name it, go on.

Two kinds: a text at which the encoder raises or gives no usable vector is found by halving its
batch; a text at which the worker dies (out of memory, a crash in a library) is found because each
attempt is noted before it is made, outside the worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray

from item_llm.folders import sha256_of_json
from item_llm.vector_rows import unusable
from pipeline.workers.driver_actor import on_drivers_node

Vectors = Callable[[Sequence[str]], np.ndarray]
_LIVES = 2  # attempts at one text alone, after which it is to blame for the worker's death


class _Attempts:
    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """How often this was begun before and never ended."""
        self._begun[name] += 1
        return self._begun[name] - 1

    def end(self, name: str) -> None:
        del self._begun[name]


class Attempts:
    """What workers have begun to encode; it outlives them."""

    def __init__(self) -> None:
        self._actor = on_drivers_node(_Attempts)

    def begin(self, name: str) -> int:
        """Note an attempt; returns how many before it came to no end."""
        before: int = ray.get(self._actor.begin.remote(name))
        return before

    def end(self, name: str) -> None:
        """Note that it came to its end."""
        ray.get(self._actor.end.remote(name))

    def close(self) -> None:
        """End the actor, if Ray has not ended it."""
        if ray.is_initialized():  # not so where a generator is closed after its error was told
            ray.kill(self._actor)


def encode_or_refuse(
    encode: Vectors, texts: Sequence[str], width: int, attempts: Attempts | None
) -> tuple[np.ndarray, list[str | None]]:
    """Encode a batch; texts that cannot be get a reason instead.

    Args:
        encode: n texts -> float32 [n, width].
        texts: n distinct texts.
        width: of a vector.
        attempts: shared by all workers; None where nothing outlives this process.

    Returns:
        float32 [n, width], zeros where there is a reason; the reasons [n].
    """
    answers = _halving(encode, texts) if attempts is None else _noted(encode, texts, attempts)
    vectors = [np.zeros(width, np.float32) if isinstance(a, str) else a for a in answers]
    return np.stack(vectors), [a if isinstance(a, str) else None for a in answers]


def _noted(encode: Vectors, texts: Sequence[str], attempts: Attempts) -> list[Any]:
    name = f"batch {sha256_of_json(list(texts))}"
    if attempts.begin(name):  # the worker before died in this batch: one text at a time
        answers = [_alone(encode, text, attempts) for text in texts]
    else:
        answers = _halving(encode, texts)
    attempts.end(name)
    return answers


def _alone(encode: Vectors, text: str, attempts: Attempts) -> np.ndarray | str:
    deaths = attempts.begin(f"text {text}")
    if deaths >= _LIVES:
        return f"its worker died {deaths} times"
    (answer,) = _halving(encode, [text])
    attempts.end(f"text {text}")
    return answer


def _halving(encode: Vectors, texts: Sequence[str]) -> list[Any]:
    """Each text's vector, or the reason that it has none."""
    try:
        vectors = encode(texts)
        wrong = [what for what, bad in unusable(vectors).items() if len(bad)]
        if not wrong:
            return list(vectors)
        reason = f"its vector is {wrong[0]}"
    except Exception as error:  # whatever it is, it is told with the text it is about
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if len(texts) == 1:
        return [reason]
    half = len(texts) // 2
    return _halving(encode, texts[:half]) + _halving(encode, texts[half:])
