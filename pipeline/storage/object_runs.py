"""The run store in an object store: what is finished is there, a mirror of it on each machine.

    STORE/NAME-KEY16/manifest.json      a finished output; written last, and only once
    STORE/NAME-KEY16/files/PATH.SHA16   its files
    STORE/NAME-KEY16/begun.json, begun/ what workers have left of an output in the making
    STORE/NAME-KEY16/lease.json         who makes it: see lease.py
    STORE/.damaged/NAME-KEY16.N/        an output whose objects no longer match its manifest

The mirror is a run store of its own, in a folder of this machine: corpora and item vectors are
memory-mapped, so they are read from there. What is used has been compared with the checksums of
the manifest in the object store. Nothing is ever renamed there; a single put of a manifest decides.
"""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pipeline.artifacts import MANIFEST, Artifact, DamagedArtifactError, RunStore
from pipeline.locks import exclusive_lock
from pipeline.storage.begun import BEGUN, Begun
from pipeline.storage.bucket import Bucket
from pipeline.storage.copies import (
    Tell,
    check_objects,
    drop_others,
    get_files,
    keep_only,
    object_keys,
    put_files,
    silent,
)
from pipeline.storage.lease import leased
from pipeline.storage.object_site import ObjectSite
from pipeline.whole_files import read_json, write_json, write_text

log = logging.getLogger(__name__)

_LEASE = "lease.json"
_DAMAGED = ".damaged"


class ObjectRunStore(RunStore):
    """Finished outputs below an address.

    Args:
        address: s3://BUCKET/PREFIX.
        mirror: a folder of this machine.
    """

    def __init__(self, address: str, mirror: Path) -> None:
        super().__init__(mirror)
        self.bucket = Bucket(address)

    @property
    def address(self) -> str:
        """Where it is, as a config names it."""
        return self.bucket.address

    def find(self, name: str, key: str, tell: Tell | None = None) -> Artifact | None:
        """The finished output, in the mirror and verified, or None if it has not been made.

        What the mirror has and the store lacks (a run was killed before its upload was over) is
        uploaded.

        Raises:
            DamagedArtifactError: an object is absent or differs from the manifest.
            StorageError: the store cannot be used.
        """
        manifest = self._remote_manifest(name, key)
        if manifest is not None:
            check_objects(self.bucket, self._area(name, key), manifest["files"])
            return self._mirrored(name, key, manifest, tell or silent)
        if (artifact := self._whole_in_mirror(name, key)) is not None:
            log.info("%s was finished but not uploaded; it is now", artifact.path.name)
            return self._publish(artifact, tell or silent)
        return None

    def state(self, name: str, key: str) -> Literal["done", "begun", "to do"]:
        """How far the output is; looks at names alone, so a damaged one is `done` too."""
        local, there = super().state(name, key), self.bucket.sizes(f"{self._prefix(name, key)}/")
        if local == "done" or f"{self._prefix(name, key)}/{MANIFEST}" in there:
            return "done"
        return "begun" if f"{self._prefix(name, key)}/{BEGUN}" in there else local

    def manifest(self, name: str, key: str) -> dict[str, Any]:
        """What the manifest of a finished output says; its files are not looked at."""
        return self._remote_manifest(name, key) or super().manifest(name, key)

    def read(self, name: str, key: str, relative: str) -> Any:
        """A JSON file of a finished output; the mirror stays as it is."""
        if (folder := self.at_hand(name, key)) is not None:
            return read_json(folder / relative)
        files = {relative: self.manifest(name, key)["files"][relative]}
        found = self.bucket.read(object_keys(self._area(name, key), files)[relative])
        if found is None:
            raise ValueError(f"{self.address}/{self._area(name, key)}/{relative} is absent")
        return json.loads(found.data)

    def set_aside(self, name: str, key: str) -> Path | str:
        """Move a damaged output out of the way; the mirror's copy, if it is whole, replaces it."""
        prefix = self._prefix(name, key)
        taken = {k.split("/")[1] for k in self.bucket.sizes(f"{_DAMAGED}/{prefix}.")}
        aside = f"{_DAMAGED}/{prefix}.{len(taken)}"
        keys = [k for k in self.bucket.sizes(f"{prefix}/") if not k.endswith(f"/{_LEASE}")]
        for each in keys:
            self.bucket.copy(each, aside + each.removeprefix(prefix))
        self.bucket.delete([f"{prefix}/{MANIFEST}"])  # first: without it the rest is not there
        self.bucket.delete(keys)
        return f"{self.address}/{aside}"

    @contextmanager
    def working_folder(
        self, name: str, key: str, *, on_wait: Callable[[str], None] = lambda _: None
    ) -> Iterator[Path]:
        """The local folder in which the output is made, while no other machine makes it."""
        prefix = self._prefix(name, key)
        with super().working_folder(name, key, on_wait=on_wait) as work:
            try:
                with leased(self.bucket, f"{prefix}/{_LEASE}", self._machine(), on_wait):
                    yield work
            except ValueError:
                self._begun(name, key).forget()
                raise

    def site(
        self, name: str, key: str, work: Path, scratch: Path, inputs: Mapping[str, Artifact]
    ) -> ObjectSite:
        """How workers on any machine find the folders of a stage."""
        named = {stage: (artifact.name, artifact.key) for stage, artifact in inputs.items()}
        begun = self._begun(name, key)
        if begun.is_there():
            scratch.mkdir(exist_ok=True)  # the stage goes on from what it has left in the store
        return ObjectSite(self.address, begun, named, work, scratch.relative_to(work))

    def commit(
        self,
        name: str,
        key: str,
        work: Path,
        recipe: Mapping[str, Any],
        tell: Tell | None = None,
    ) -> Artifact:
        """Finish the output in the mirror, upload its files, and put its manifest last."""
        artifact = super().commit(name, key, work, recipe)
        return self._publish(artifact, tell or silent)

    def left_whole(
        self, name: str, key: str, work: Path, tell: Tell | None = None
    ) -> Artifact | None:
        """The output, if an attempt on this machine had made all of it: it is uploaded."""
        artifact = super().left_whole(name, key, work)
        return None if artifact is None else self._publish(artifact, tell or silent)

    def _publish(self, artifact: Artifact, tell: Tell) -> Artifact:
        name, key = artifact.name, artifact.key
        prefix = self._prefix(name, key)
        area = self._area(name, key)
        put_files(self.bucket, area, artifact.path, artifact.files, tell)
        text = (artifact.path / MANIFEST).read_bytes()
        if self.bucket.write(f"{prefix}/{MANIFEST}", text, if_absent=True) is None:
            # Another machine was first: an output never changes, so its files are the ones to use.
            winner = self._remote_manifest(name, key)
            assert winner is not None
            log.info("%s was finished by another machine first; its files are used", prefix)
            artifact = self._mirrored(name, key, winner, tell)
        self._begun(name, key).forget()
        drop_others(self.bucket, area, artifact.files)
        return artifact

    def _mirrored(self, name: str, key: str, manifest: dict[str, Any], tell: Tell) -> Artifact:
        """The output in the mirror, fetched if it is not there or another than the manifest's."""
        folder = self.folder(name, key)
        with exclusive_lock(self.root / ".locks" / f"mirror.{folder.name}", wait=True):
            try:
                held = super().find(name, key)
            except DamagedArtifactError as error:
                log.warning("%s; it is fetched again", error)
                held = None
            if held is not None and held.files == manifest["files"]:
                return held
            fetched = self.root / ".work" / f"mirror.{folder.name}"
            get_files(self.bucket, self._area(name, key), fetched, manifest["files"], tell)
            keep_only(fetched, manifest["files"])
            write_json(fetched / MANIFEST, manifest)
            if folder.exists():  # renamed, not removed: another process may have it mapped
                worn = self.root / ".work" / f"worn.{uuid.uuid4().hex}"
                folder.rename(worn)
                shutil.rmtree(worn)
            fetched.rename(folder)
        return Artifact(name, key, folder, manifest["files"], manifest["recipe"])

    def _whole_in_mirror(self, name: str, key: str) -> Artifact | None:
        try:
            return super().find(name, key)
        except DamagedArtifactError as error:
            aside = super().set_aside(name, key)
            log.warning("%s; it was moved to %s", error, aside)
            return None

    def _manifest_in(self, folder: str) -> dict[str, Any] | None:
        found = self.bucket.read(f"{folder}/{MANIFEST}")
        return super()._manifest_in(folder) if found is None else json.loads(found.data)

    def _remote_manifest(self, name: str, key: str) -> dict[str, Any] | None:
        place = f"{self._prefix(name, key)}/{MANIFEST}"
        found = self.bucket.read(place)
        if found is None:
            return None
        try:
            manifest: dict[str, Any] = json.loads(found.data)
            if manifest["key"] != key:
                raise ValueError(f"it has key {manifest['key'][:16]}, expected {key[:16]}")
            Artifact(name, key, self.folder(name, key), manifest["files"], manifest["recipe"])
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedArtifactError(
                f"the manifest {self.address}/{place} is damaged: {error}"
            ) from error
        return manifest

    def _prefix(self, name: str, key: str) -> str:
        return self.folder(name, key).name

    def _area(self, name: str, key: str) -> str:
        return f"{self._prefix(name, key)}/files"

    def _begun(self, name: str, key: str) -> Begun:
        return Begun(self.bucket, self._prefix(name, key))

    def _machine(self) -> str:
        """An id of this mirror; its locks tell apart the processes that share it."""
        path = self.root / ".machine"
        with exclusive_lock(self.root / ".locks" / "machine", wait=True):
            if not path.is_file():
                write_text(path, uuid.uuid4().hex)
            return path.read_text(encoding="utf-8")
