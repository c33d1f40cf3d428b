"""Folders whose contents are checked: written aside, manifest last, put in place by one rename.

A folder without a manifest was never finished; one whose files differ from its manifest raises.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_OWN = "manifest_sha256"
_BLOCK = 1 << 22


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hex sha256 of a JSON value in its canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, durable on a local disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_manifest(folder: Path, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Hash and sync every file of `folder`, then write its manifest, last and atomically.

    Returns the manifest: `fields`, `kind`, `files` as {relative name: sha256}, and the sha256 of
    all that.
    """
    files = {}
    for name in sorted(_files_of(folder) - {MANIFEST}):
        fsync_path(folder / name)
        files[name] = sha256_of(folder / name)
    manifest = {**fields, "kind": kind, "files": files}
    manifest[_OWN] = sha256_of_json(manifest)
    aside = folder / f".{MANIFEST}.{os.getpid()}"
    aside.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    fsync_path(aside)
    os.replace(aside, folder / MANIFEST)
    fsync_path(folder)
    return manifest


def _files_of(folder: Path) -> set[str]:
    """Names of the files below a folder, relative to it."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def read_manifest(folder: Path, kind: str, *, verify: bool = True) -> dict[str, Any]:
    """Read a folder's manifest and, with `verify`, compare every file with its checksum.

    Raises:
        ValueError: no manifest, another kind, or a file that is absent or differs.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"{folder}: no {MANIFEST}, so this is not a finished {kind}; "
            "check the path, or delete the folder and make it again"
        )
    manifest = _parsed(path)
    if manifest["kind"] != kind:
        raise ValueError(f"{folder}: holds a {manifest['kind']!r}, expected a {kind!r}")
    if not verify:
        return manifest
    # By the folder's own list: a name that leads out of it, or that no file can have, is not there.
    present = _files_of(folder)
    for name, expected in manifest["files"].items():
        got = sha256_of(folder / name) if name in present else "no such file"
        if got != expected:
            raise ValueError(
                f"{folder / name}: sha256 is {got}, the manifest says {expected}; "
                f"the {kind} is damaged: delete {folder} and make it again"
            )
    return manifest


def _parsed(path: Path) -> dict[str, Any]:
    """A manifest with its `kind` and its `files`."""
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        named = {"kind": manifest["kind"], **manifest["files"]}
        if not all(isinstance(value, str) for value in named.values()):
            raise ValueError("a checksum or the kind is no text")
        rest = {name: value for name, value in manifest.items() if name != _OWN}
        if manifest.get(_OWN) not in (None, sha256_of_json(rest)):  # older ones have none
            raise ValueError("it differs from its own checksum")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: is no manifest ({type(error).__name__}: {error}); delete {path.parent} and "
            "make it again"
        ) from error
    return manifest


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, removed at the end unless `publish` moved it away."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(staging: Path, target: Path, *, replace: bool) -> None:
    """Move a finished `staging` folder to `target` in one rename.

    With `replace` an older `target` makes way. Without it the first of two racing writers wins and
    the other's folder is dropped: right where the name is the hash of the contents.
    """
    assert (staging / MANIFEST).is_file(), f"{staging} has no manifest yet"
    if replace and target.exists():
        with staged(target) as grave:
            os.rename(target, grave / "old")
            os.rename(staging, target)
    else:
        try:
            os.rename(staging, target)
        except OSError:
            if not (target / MANIFEST).is_file():
                raise
    fsync_path(target.parent)
