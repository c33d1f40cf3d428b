"""The folder through which a running server is told of a new bundle, and says who has it.

wanted.json   {"path", "version"}: the bundle that is to answer; whoever may write it decides
status.json   the server's process, its address, and the bundle of each replica
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.recommender.bundle import Bundle
from pipeline.serving.desk import Report
from pipeline.serving.live import Wanted
from pipeline.whole_files import write_json

_WANTED, _STATUS = "wanted.json", "status.json"
_PAUSE = 0.2  # seconds between two looks


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: str
    version: str


class ReplicaStatus(BaseModel):
    """Which bundle a replica answers with, and why not with the wanted one, where it has failed."""

    model_config = ConfigDict(extra="forbid")

    process: int
    version: str
    tried: str
    refused: str


class Status(BaseModel):
    """What a server says of itself."""

    model_config = ConfigDict(extra="forbid")

    process: int
    address: str
    expected: int
    replicas: dict[str, ReplicaStatus]

    def refusals(self, version: str) -> list[str]:
        """Why replicas could not load a bundle of this version."""
        tried = [one for one in self.replicas.values() if one.tried == version]
        return [one.refused for one in tried if one.refused]

    def has(self, version: str) -> bool:
        """Whether every replica answers with this version."""
        versions = [one.version for one in self.replicas.values()]
        return len(versions) >= self.expected and set(versions) == {version}


class Control:
    """The control folder of one server.

    Args:
        folder: absolute.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def want(self, wanted: Wanted) -> None:
        """Ask for a bundle."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / _WANTED, wanted._asdict())

    def wanted(self) -> Wanted:
        """The bundle that is asked for.

        Raises:
            ValueError: the file is absent or not what `want` writes.
        """
        path = self.folder / _WANTED
        try:
            wish = _Wish.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ValueError(
                f"{path}: cannot be read ({error}); give `python jobs/serve.py swap BUNDLE`"
            ) from error
        return Wanted(wish.path, wish.version)

    def say(self, address: str, expected: int, reports: list[Report]) -> Status:
        """Write how the server stands, and return it."""
        replicas = {
            report.replica: ReplicaStatus(
                process=report.process,
                version=report.version,
                tried=report.tried,
                refused=report.refused,
            )
            for report in reports
        }
        status = Status(process=os.getpid(), address=address, expected=expected, replicas=replicas)
        write_json(self.folder / _STATUS, status.model_dump())
        return status

    def status(self) -> Status:
        """What the running server has said last.

        Raises:
            ValueError: no server runs with this folder.
        """
        path = self.folder / _STATUS
        try:
            status = Status.model_validate_json(path.read_bytes())
            os.kill(status.process, 0)
        except (OSError, ValidationError) as error:
            raise ValueError(
                f"no server runs with {self.folder}: start one with `python jobs/serve.py "
                "--bundle BUNDLE`, or name its --port or --control"
            ) from error
        return status

    def leave(self) -> None:
        """Say that the server has ended."""
        (self.folder / _STATUS).unlink(missing_ok=True)

    def swap(self, bundle: str | Path, patience: float, tell: Callable[[str], None]) -> Status:
        """Ask for another bundle and wait until every replica answers with it.

        Args:
            bundle: its folder or address; all its checksums are compared first.
            patience: seconds.
            tell: is told what is waited for.

        Raises:
            ValueError: no server runs, the bundle is damaged, a replica cannot load it, or it
                took too long.
        """
        self.status()
        wanted = wanted_of(bundle)
        self.want(wanted)
        tell(f"bundle {wanted.version}: asked for; waiting for the replicas")
        until = time.monotonic() + patience
        while time.monotonic() < until:
            status = self.status()
            if refusals := status.refusals(wanted.version):
                raise ValueError(f"a replica could not load it and keeps the old: {refusals[0]}")
            if status.has(wanted.version):
                return status
            time.sleep(_PAUSE)
        raise ValueError(
            f"bundle {wanted.version} was asked for, but not all replicas had it after "
            f"{patience:.0f} s; they go on: see {self.folder / _STATUS}"
        )


def wanted_of(bundle: str | Path) -> Wanted:
    """A bundle's place and version, after comparing all checksums; raises ValueError."""
    return Wanted(str(bundle), Bundle.open(bundle).version)
