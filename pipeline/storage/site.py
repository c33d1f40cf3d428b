"""How a worker finds a stage's folders, on whichever machine it runs.

On a file system that all nodes share they are the driver's own folders. With an object store each
worker fetches the inputs into its machine's mirror, works in a folder of its own, and what it
leaves there goes to the store: with each checkpoint, and at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.storage.copies import Tell


def nothing_to_keep() -> None:
    """What is written stays where it is."""


@dataclass(frozen=True)
class StageFolders:
    """A stage's folders on one machine.

    Attributes:
        output: to write into.
        scratch: for checkpoints: what an earlier attempt has left is there.
        inputs: the finished outputs that the stage reads, by stage name.
        keep: to be called after a checkpoint, by worker 0: makes it outlive the machine.
    """

    output: Path
    scratch: Path
    inputs: Mapping[str, Path]
    keep: Callable[[], None] = nothing_to_keep


class Site(Protocol):
    """What a stage gives its workers; it is sent to them."""

    def folders(self, rank: int, tell: Tell) -> AbstractContextManager[StageFolders]:
        """The folders of worker `rank`, on the machine that calls, for the length of a block."""

    def input(self, stage: str) -> Path:
        """The folder of one input, on the machine that calls."""

    def collect(self, tell: Tell) -> None:
        """Bring what the workers wrote into the driver's working folder; the driver calls it."""


@dataclass(frozen=True)
class SharedSite:
    """A stage whose workers see the driver's folders."""

    shared: StageFolders

    @contextmanager
    def folders(self, rank: int, tell: Tell) -> Iterator[StageFolders]:
        """The driver's own."""
        yield self.shared

    def input(self, stage: str) -> Path:
        """The driver's own."""
        return self.shared.inputs[stage]

    def collect(self, tell: Tell) -> None:
        """Nothing: it is there."""
