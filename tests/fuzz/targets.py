"""What is fuzzed: bytes in, and an error of ours or a sound answer out; anything else is a crash.

    jsonl     JSON lines, and the dicts of Python 2 that some dumps hold
    csv       CSV with quotes, in blocks of a few bytes too
    atomic    RecBole's atomic files
    manifest  the manifests of the run store, of the item LLM's folders and of user models

Beside the absence of crashes each checks that every line is either kept or refused, and that the
fast and the slow way agree.
"""

import tempfile
from pathlib import Path

from pipeline.sources.delimited import CSV, delimited_pieces
from pipeline.sources.formats.recbole import RecBoleConfig, read_recbole
from pipeline.sources.formats.table import TableConfig, read_table
from pipeline.sources.json_lines import first_objects, json_pieces, object_decoder

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz."))
_EITHER = object_decoder()
_KEY = "0123456789abcdef" * 4


def jsonl(data):
    """Read as interactions, as items, and as Python's dicts."""
    file = _written("events.jsonl", data)
    _table("events.jsonl")
    _refused(lambda: first_objects(file), ValueError)
    _refused(lambda: _decoded(file), ValueError)


def csv(data):
    """Read as interactions, and in small blocks, which must give the same."""
    file = _written("events.csv", data)
    _table("events.csv")
    assert _of_blocks(file, 7) == _of_blocks(file, 1 << 22)


def atomic(data):
    """Read NAME.inter, with the same bytes as NAME.item beside it."""
    _written("shop.item", data)
    _written("shop.inter", data)
    config = RecBoleConfig(path="shop.inter")
    _counted(lambda: read_recbole(config, FOLDER))


def manifest(data):
    """Read as the manifest of every kind of folder; a file named in it may be there."""
    # Here, since these packages import torch, which the other targets need not wait for.
    from item_llm.folders import read_manifest
    from pipeline.artifacts import DamagedArtifactError, RunStore
    from user_model.checkpoint import CheckpointError, read_record

    store = RunStore(FOLDER / "store")
    folder = store.folder("corpus", _KEY)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").write_bytes(b"")
    (folder / "manifest.json").write_bytes(data)
    found = _refused(lambda: store.find("corpus", _KEY), DamagedArtifactError)
    assert found is None or all((folder / name).is_file() for name in found.files)
    _refused(lambda: read_manifest(folder, "adapter"), ValueError)
    _refused(lambda: read_record(folder), CheckpointError)


TARGETS = {target.__name__: target for target in (jsonl, csv, atomic, manifest)}


def _written(name, data):
    path = FOLDER / name
    path.write_bytes(data)
    return path


def _table(name):
    config = TableConfig(interactions=name)
    _counted(lambda: read_table(config, FOLDER))


def _refused(read, kind):
    """The answer, or None where it was refused with the place of what is wrong."""
    try:
        return read()
    except kind as error:
        sentence = str(error)
    assert str(FOLDER) in sentence
    return None


def _counted(read):
    """Every row is kept or refused, and what is kept has an id that is one."""
    tables = _refused(lambda: read().whole(), ValueError)
    if tables is None:
        return
    assert tables.interactions.height + tables.items.height + len(tables.rejected) == (
        tables.rows_read
    )
    for column in ("user_id", "item_id"):
        assert all(id_.strip() and "\0" not in id_ for id_ in tables.interactions[column])


def _decoded(file):
    """Every line is kept or refused."""
    for piece in json_pieces(file, {"item_id": "item_id", "text 0": "title"}, decode=_EITHER):
        found = piece.slow()
        assert found.rows.height + len(found.rejected) == found.rows_read


def _of_blocks(file, size):
    """Good and bad lines, or what is wrong with the file."""
    try:
        found = [p.slow() for p in delimited_pieces(file, {"a": "a"}, CSV, block_bytes=size)]
    except ValueError as error:
        return str(error)
    rows = [row for columns in found for row in columns.rows.select("line", "a").rows()]
    bad = [(r.line, r.reason) for columns in found for r in columns.rejected]
    return rows, sorted(bad)
