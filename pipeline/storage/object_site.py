"""A stage's folders on a machine that shares nothing with the driver's but the object store."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import Artifact, DamagedArtifactError
from pipeline.locks import BusyError, exclusive_lock
from pipeline.storage.begun import Begun
from pipeline.storage.bucket import StorageError
from pipeline.storage.copies import Tell, silent
from pipeline.storage.mirror import mirror_of
from pipeline.storage.site import StageFolders


@dataclass(frozen=True)
class ObjectSite:
    """A stage whose workers meet in an object store.

    Attributes:
        address: of the store.
        begun: what is kept there of the output in the making.
        named: name and key of each input, by stage name.
        work: the driver's working folder.
        scratch: the part of a working folder that is for checkpoints; relative.
    """

    address: str
    begun: Begun
    named: Mapping[str, tuple[str, str]]
    work: Path
    scratch: Path

    @contextmanager
    def folders(self, rank: int, tell: Tell) -> Iterator[StageFolders]:
        """Inputs in the machine's mirror, and a working folder of this process alone.

        It begins as what was kept in the store, for every worker, and what worker 0 leaves in it
        is kept there.
        """
        told = tell if rank == 0 else silent
        inputs = {stage: self._fetched(*named, told).path for stage, named in self.named.items()}
        with _own_folder(mirror_of(self.address), self.begun.prefix) as work:
            self.begun.restore(work, told)
            (work / self.scratch).mkdir(parents=True, exist_ok=True)

            def keep() -> None:
                self.begun.keep(work, told)

            yield StageFolders(work, work / self.scratch, inputs, keep)
            if rank == 0:
                keep()

    def input(self, stage: str) -> Path:
        """The folder of one input in this machine's mirror, fetched if it is not there.

        Raises:
            StorageError: it is not in the store, or damaged there; then it is set aside.
        """
        return self._fetched(*self.named[stage], silent).path

    def collect(self, tell: Tell) -> None:
        """Fetch what the workers have finished into the driver's working folder."""
        self.begun.collect(self.work, str(self.scratch), tell)

    def _fetched(self, name: str, key: str, tell: Tell) -> Artifact:
        # Here, since the store makes sites.
        from pipeline.storage.stores import open_store

        store = open_store(self.address)
        try:
            artifact = store.find(name, key, tell)
        except DamagedArtifactError as error:
            aside = store.set_aside(name, key)
            raise StorageError(
                f"{error}; it was moved to {aside}. Give the same command again, which makes it "
                "again"
            ) from None
        if artifact is None:
            raise StorageError(
                f"{self.address}: the output {name}-{key[:16]} is not there, though this run has "
                "finished it; something removed it: give the same command again"
            )
        return artifact


@contextmanager
def _own_folder(mirror: Path, prefix: str) -> Iterator[Path]:
    """A working folder of this process; those of workers that were killed are removed.

    It is there only while its lock is held, so one whose lock is free is nobody's.
    """
    for left in (mirror / ".work").glob(f"{prefix}.worker-*"):
        with suppress(BusyError), exclusive_lock(mirror / ".locks" / left.name, wait=False):
            shutil.rmtree(left, ignore_errors=True)
    folder = mirror / ".work" / f"{prefix}.worker-{uuid.uuid4().hex}"
    with exclusive_lock(mirror / ".locks" / folder.name, wait=True):
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            (mirror / ".locks" / folder.name).unlink(missing_ok=True)
