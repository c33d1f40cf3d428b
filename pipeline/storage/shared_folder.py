"""A finished folder (`item_llm.folders`) in an object store, and a machine's copy of it.

    ADDRESS/manifest.json      put last, whole: a reader sees the old folder or the new one
    ADDRESS/files/NAME.SHA16   one file's bytes; never changed, never removed

An older folder's objects stay, so that whoever is reading it comes to its end.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from item_llm.folders import MANIFEST, read_manifest, staged
from pipeline.storage.bucket import Bucket
from pipeline.storage.copies import Files, get_files, object_keys, put_files, silent
from pipeline.storage.mirror import mirror_of

_FILES = "files"


def check_free(address: str) -> None:
    """See that no finished folder is there; raises ValueError where one is."""
    if Bucket(address).read(MANIFEST) is not None:
        raise ValueError(f"{address}: holds a finished folder; give another address, or --replace")


def put_folder(folder: Path, address: str, kind: str, *, replace: bool) -> None:
    """Upload a finished folder.

    Args:
        folder: with a manifest.
        address: s3://BUCKET/PREFIX.
        kind: what the manifest says that it holds.
        replace: let an older one make way.

    Raises:
        ValueError: one is there already, or another writer was faster.
        StorageError: the store cannot be used.
    """
    bucket = Bucket(address)
    before = bucket.read(MANIFEST) if replace else None
    hashes = read_manifest(folder, kind)["files"]
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256}
        for name, sha256 in hashes.items()
    }
    put_files(bucket, _FILES, folder, files, silent)
    content, tag = (folder / MANIFEST).read_bytes(), before.tag if before else None
    if bucket.write(MANIFEST, content, if_absent=before is None, if_tag=tag) is None:
        raise ValueError(
            f"{address}: another {kind} was put there meanwhile; look at it, then give the command "
            "again with --replace, or another address"
        )


def fetch_folder(address: str, kind: str) -> Path:
    """Bring this machine's copy of a folder up to date.

    Each state of the address has a copy of its own, and one that is there is only compared with its
    checksums.

    Args:
        address: s3://BUCKET/PREFIX.
        kind: what the manifest is to say that it holds.

    Returns:
        The copy, below `mirror_of`.

    Raises:
        ValueError: nothing of this kind is there, or an object is absent or damaged.
        StorageError: the store cannot be used.
    """
    bucket = Bucket(address)
    manifest = bucket.read(MANIFEST)
    if manifest is None:
        raise ValueError(f"{address}: no {MANIFEST}, so no finished {kind}; check the address")
    copy = mirror_of(address) / hashlib.sha256(manifest.data).hexdigest()[:16]
    with staged(copy) as aside:
        (aside / MANIFEST).write_bytes(manifest.data)
        hashes = _hashes(address, aside, kind)
        get_files(bucket, _FILES, copy, _with_sizes(bucket, hashes), silent)
        os.replace(aside / MANIFEST, copy / MANIFEST)
    return copy


def _hashes(address: str, aside: Path, kind: str) -> dict[str, str]:
    try:
        hashes: dict[str, str] = read_manifest(aside, kind, verify=False)["files"]
    except ValueError as error:
        raise ValueError(
            f"{address}: its {MANIFEST} is damaged or none of a {kind}; put the {kind} there again"
        ) from error
    return hashes


def _with_sizes(bucket: Bucket, hashes: dict[str, str]) -> Files:
    """A manifest of checksums, with the sizes that the store tells; what is absent has -1."""
    files = {name: {"sha256": sha256} for name, sha256 in hashes.items()}
    keys, there = object_keys(_FILES, files), bucket.sizes(f"{_FILES}/")
    return {name: {**facts, "bytes": there.get(keys[name], -1)} for name, facts in files.items()}
