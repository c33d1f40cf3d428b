"""What is wrong with a file is told by its name, in every format."""

import gzip

import pytest

from pipeline.ingest import recognise
from pipeline.sources.registry import FORMATS, read_source

# Of text files; damaged tables of `datasets` are in test_huggingface.py.
OF_TEXT = sorted(FORMATS.keys() - {"simulated", "huggingface"})


@pytest.fixture(params=OF_TEXT)
def source(request, tmp_path, small_data):
    """The config of a small data set and the files it reads."""
    first, *others = small_data(tmp_path, request.param)
    config = recognise(first, others).config()
    return config, config.files(tmp_path)


def append(file, line):
    """Append a line; returns its number."""
    data = gzip.decompress(file.read_bytes()) if is_gzip(file) else file.read_bytes()
    longer = data + line
    file.write_bytes(gzip.compress(longer) if is_gzip(file) else longer)
    return longer.count(b"\n")


def test_a_line_that_cannot_be_read_costs_itself_alone(source, tmp_path):
    config, files = source
    good = read_source(config, tmp_path).whole()
    numbers = {file: append(file, b"\xff\xfe\x00\n") for file in files}
    tables = read_source(config, tmp_path).whole()
    assert {row.file: row.line for row in tables.rejected} == numbers
    assert len(tables.rejected) == len(files)
    assert tables.interactions.equals(good.interactions)
    assert tables.items.equals(good.items)


def test_gzip_data_that_break_off_stop_it(source, tmp_path):
    config, files = source
    for file in filter(is_gzip, files):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=rf"{file.name}:\d+: the gzip data are damaged"):
            read_source(config, tmp_path).whole()
        file.write_bytes(whole)


def test_a_file_that_is_absent_is_named(source, tmp_path):
    config, files = source
    for file in files:
        file.rename(tmp_path / "aside")
        if file.suffix == ".item":  # read only if it is there
            assert read_source(config, tmp_path).whole().items.height == 0
        else:
            with pytest.raises(ValueError, match=rf"the file .*{file.name} is absent"):
                read_source(config, tmp_path)
        (tmp_path / "aside").rename(file)


def is_gzip(file):
    return file.name.endswith(".gz")
