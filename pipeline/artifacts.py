"""The run store: outputs named by their content's recipe, complete or not there at all.

    STORE/NAME-KEY16/            a finished output: its files, and manifest.json written last
    STORE/.work/NAME-KEY16/      an output in the making, with what it needs to resume
    STORE/.locks/NAME-KEY16      held by the one process that makes it
    STORE/.damaged/NAME-KEY16.N  an output whose files no longer match its manifest

The KEY is a hash of everything the output depends on, so an output never changes once its
manifest stands, and two runs that need the same thing share it.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.locks import exclusive_lock
from pipeline.whole_files import content_hash, file_sha256, flush, is_inside, read_json, write_json

if TYPE_CHECKING:
    from pipeline.storage.copies import Tell
    from pipeline.storage.site import Site

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SCRATCH = ".scratch"  # of a working folder: checkpoints, which are no part of the output
_OWN = "manifest_sha256"


class DamagedArtifactError(ValueError):
    """An output's files differ from what its manifest says."""


@dataclass(frozen=True)
class Artifact:
    """A finished output: its folder, its key, and what its manifest says: files and recipe."""

    name: str
    key: str
    path: Path
    files: Mapping[str, Mapping[str, Any]]
    recipe: Mapping[str, Any]


class RunStore:
    """Finished outputs below one folder, shared by all runs that name it.

    `tell` of its methods is told of transfers; a folder has none.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def address(self) -> str:
        """Where it is, as a config names it."""
        return str(self.root)

    def folder(self, name: str, key: str) -> Path:
        """Where the output `name` with `key` stands once it is finished."""
        return self.root / f"{name}-{key[:16]}"

    def find(self, name: str, key: str, tell: Tell | None = None) -> Artifact | None:
        """The finished output, verified, or None if it has not been made.

        Raises:
            DamagedArtifactError: its folder stands, but a file is absent or differs.
        """
        folder = self.folder(name, key)
        if not folder.exists():
            return None
        return _verified(name, key, folder)

    def named(self, folder: str, tell: Tell | None = None) -> Artifact | None:
        """The finished output in a folder of the store, as a run card names it; as `find`."""
        manifest = self._manifest_in(Path(folder).name)
        return None if manifest is None else self.find(manifest["name"], manifest["key"], tell)

    def state(self, name: str, key: str) -> Literal["done", "begun", "to do"]:
        """How far the output is; looks at names alone, so a damaged one is `done` too."""
        folder = self.folder(name, key)
        if (folder / MANIFEST).is_file():
            return "done"
        return "begun" if (self.root / ".work" / folder.name).is_dir() else "to do"

    def manifest(self, name: str, key: str) -> dict[str, Any]:
        """What the manifest of a finished output says; its files are not looked at."""
        manifest: dict[str, Any] = read_json(self.folder(name, key) / MANIFEST)
        return manifest

    def read(self, name: str, key: str, relative: str) -> Any:
        """A JSON file of a finished output."""
        return read_json(self.folder(name, key) / relative)

    def at_hand(self, name: str, key: str) -> Path | None:
        """The folder of a finished output where it is on this machine; None: nowhere, or remote."""
        folder = self.folder(name, key)
        return folder if (folder / MANIFEST).is_file() else None

    def set_aside(self, name: str, key: str) -> Path | str:
        """Move a damaged output out of the way, so that it can be made again; nothing is lost."""
        folder, damaged = self.folder(name, key), self.root / ".damaged"
        damaged.mkdir(parents=True, exist_ok=True)
        taken = sum(1 for _ in damaged.glob(f"{folder.name}.*"))
        return Path(shutil.move(folder, damaged / f"{folder.name}.{taken}"))

    @contextmanager
    def working_folder(
        self, name: str, key: str, *, on_wait: Callable[[str], None] = lambda _: None
    ) -> Iterator[Path]:
        """The folder in which the output is made: kept after a crash, removed after a ValueError.

        A ValueError is the user's to mend (a broken line, an empty domain): what was begun with
        the wrong input is of no use, and the store is left as it was.
        """
        existed = self.root.exists()
        work = self.root / ".work" / f"{name}-{key[:16]}"
        lock = self.root / ".locks" / f"{name}-{key[:16]}"
        try:
            with exclusive_lock(lock, wait=True, on_wait=on_wait):
                work.mkdir(parents=True, exist_ok=True)
                yield work
        except ValueError:
            shutil.rmtree(work, ignore_errors=True)
            lock.unlink(missing_ok=True)
            self._remove_if_empty(existed)
            raise

    def site(
        self, name: str, key: str, work: Path, scratch: Path, inputs: Mapping[str, Artifact]
    ) -> Site:
        """How workers on any machine find the folders of a stage.

        Args:
            name: of the output that is being made.
            key: of it.
            work: its working folder.
            scratch: the part of it that is for checkpoints.
            inputs: the finished outputs that the stage reads, by stage name.
        """
        from pipeline.storage.site import SharedSite, StageFolders

        paths = {stage: artifact.path for stage, artifact in inputs.items()}
        return SharedSite(StageFolders(work, scratch, paths))

    def commit(
        self,
        name: str,
        key: str,
        work: Path,
        recipe: Mapping[str, Any],
        tell: Tell | None = None,
    ) -> Artifact:
        """Turn a working folder into a finished output: checksums, manifest last, rename."""
        files = checksums(work, without=SCRATCH)
        for relative in files:
            flush(work / relative)
        manifest = {"name": name, "key": key, "recipe": recipe, "files": files}
        write_json(work / MANIFEST, manifest | {_OWN: content_hash(manifest)})
        return self._put_in_place(Artifact(name, key, work, files, recipe))

    def left_whole(
        self, name: str, key: str, work: Path, tell: Tell | None = None
    ) -> Artifact | None:
        """The output, if an attempt that was killed had made all of it: it is put in its place.

        Else what that attempt left is removed, but for its checkpoints: half a file must not
        become a part of the output.
        """
        if (work / MANIFEST).is_file():
            try:
                return self._put_in_place(_verified(name, key, work))
            except DamagedArtifactError as error:
                log.warning("%s; it is made again", error)
        clear_but_scratch(work)
        return None

    def _put_in_place(self, made: Artifact) -> Artifact:
        """Checkpoints go last, so that a kill before the rename costs nothing."""
        shutil.rmtree(made.path / SCRATCH, ignore_errors=True)
        folder = self.folder(made.name, made.key)
        os.replace(made.path, folder)
        flush(self.root)
        return replace(made, path=folder)

    def _manifest_in(self, folder: str) -> dict[str, Any] | None:
        """The manifest in a folder of the store, unchecked; None where there is none."""
        path = self.root / folder / MANIFEST
        return read_json(path) if path.is_file() else None

    def _remove_if_empty(self, existed: bool) -> None:
        for folder in (self.root / ".work", self.root / ".locks"):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if not existed and self.root.is_dir() and not any(self.root.iterdir()):
            self.root.rmdir()


def clear_but_scratch(work: Path) -> None:
    """Remove from a working folder whatever was written of the output; checkpoints stay."""
    for left in work.iterdir():
        if left.name != SCRATCH:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def checksums(folder: Path, *, without: str | None = None) -> dict[str, dict[str, Any]]:
    """Bytes and SHA-256 of each file below a folder but its own manifest, by relative path.

    Args:
        folder: all of it is read.
        without: the name of a folder in it that is left out.
    """
    omitted = None if without is None else folder / without
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST and omitted not in path.parents
    }


def _verified(name: str, key: str, folder: Path) -> Artifact:
    try:
        manifest = read_json(folder / MANIFEST)
        if manifest["key"] != key:
            raise ValueError(f"its manifest has key {manifest['key'][:16]}, expected {key[:16]}")
        rest = {field: value for field, value in manifest.items() if field != _OWN}
        if manifest.get(_OWN) not in (None, content_hash(rest)):  # older ones have none
            raise ValueError("its manifest differs from its own checksum")
        for relative, expected in manifest["files"].items():
            if not is_inside(relative):
                raise ValueError(f"its manifest names {relative!r}, which leads out of its folder")
            check_file(folder / relative, expected)
        return Artifact(name, key, folder, manifest["files"], manifest["recipe"])
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        why = f"{type(error).__name__}: {error}"  # of a KeyError the text alone is a bare word
        raise DamagedArtifactError(f"the output {folder} is damaged: {why}") from error


def check_file(path: Path, expected: Mapping[str, Any]) -> None:
    """See that a file is as its manifest says.

    Raises:
        ValueError: it has another size or another content.
        OSError: it is not there.
    """
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise ValueError(f"{path.name} has {size} bytes, expected {expected['bytes']}")
    if (digest := file_sha256(path)) != expected["sha256"]:
        raise ValueError(f"{path.name} has sha256 {digest[:12]}, not {expected['sha256'][:12]}")
