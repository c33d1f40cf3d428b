"""A corpus on disk: .npy arrays and Arrow string tables, and corpus.json, written last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import file_sha256, flush, read_json, write_json
from pipeline.string_table import StringTable

FORMAT = 1
ARRAYS = ("offsets", "items", "timestamps")
TABLES = ("user_keys", "item_ids", "texts")
_MANIFEST = "corpus.json"


def save_parts(
    path: Path,
    domains: Sequence[Mapping[str, Any]],
    fingerprint: str,
    parts: Mapping[str, Any],
) -> None:
    """Write everything aside, flush it, then rename it, so that `path` is whole or absent.

    Args:
        path: the folder to be.
        domains: plain data for the manifest.
        fingerprint: of the corpus.
        parts: an array or a StringTable for each name in ARRAYS and TABLES.

    Raises:
        ValueError: `path` exists and is not an empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"cannot save a corpus to {path}: it exists; remove it first")
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name in ARRAYS:
        np.save(aside / f"{name}.npy", parts[name], allow_pickle=False)
    for name in TABLES:
        parts[name].save(aside / f"{name}.arrow")
    files = sorted(aside.iterdir())
    for file in files:
        flush(file)
    manifest = {
        "format": FORMAT,
        "domains": list(domains),
        "fingerprint": fingerprint,
        "files": {file.name: file_sha256(file) for file in files},
    }
    write_json(aside / _MANIFEST, manifest)
    os.replace(aside, path)
    flush(path.parent)


def open_parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(manifest, parts): what `save_parts` wrote, verified and memory-mapped.

    Raises:
        ValueError: the folder is absent, of another format, or damaged.
    """
    manifest = read_json(path / _MANIFEST)
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"the corpus {path} has format {manifest.get('format')}, expected {FORMAT}: "
            "remove the folder and run the job again"
        )
    for name, expected in manifest["files"].items():
        file = path / name
        if not file.is_file() or file_sha256(file) != expected:
            raise ValueError(
                f"the corpus {path} is damaged: {name} is absent or differs from its checksum; "
                "remove the folder and run the job again"
            )
    parts: dict[str, Any] = {name: StringTable.open(path / f"{name}.arrow") for name in TABLES}
    for name in ARRAYS:
        parts[name] = np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return dict(manifest), parts
