import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.sources import SimulatedConfig, SourceConfig, read_source, source_fingerprint

adapter = TypeAdapter(SourceConfig)


def test_the_format_chooses_the_config():
    source = adapter.validate_python({"format": "simulated", "catalogue": "books"})
    assert isinstance(source, SimulatedConfig)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"format": "cvs", "path": "x"}, "'sequences', 'simulated', .*'table'"),
        ({"format": "ids", "path": "x", "pth": "y"}, "Extra inputs are not permitted"),
        ({"format": "ids", "path": "x", "platform": "a:b"}, "platform 'a:b' cannot be used"),
        ({"format": "ids", "path": "x", "platform": ""}, "platform '' cannot be used"),
        ({"format": "ids", "path": "x", "max_users": 0}, "greater than or equal to 1"),
        ({"format": "simulated", "catalogue": "books", "items": 20, "mean_history": 11},
         "half of the 20 items"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_config_is_named(config, message):
    with pytest.raises(ValidationError, match=message):
        adapter.validate_python(config)


def test_the_fingerprint_is_that_of_the_contents(tmp_path):
    for name, text in (("a.txt", "1 2 3\n"), ("b.txt", "1 2 3\n"), ("c.txt", "1 2 4\n")):
        (tmp_path / name).write_text(text)
    a, b, c = (
        source_fingerprint(adapter.validate_python({"format": "ids", "path": name}), tmp_path)
        for name in ("a.txt", "b.txt", str(tmp_path / "c.txt"))
    )
    assert a == b != c


def test_the_fingerprint_of_a_simulated_source_is_that_of_its_parameters(tmp_path):
    a, b, c = (
        source_fingerprint(SimulatedConfig(catalogue="books", seed=seed), tmp_path)
        for seed in (1, 1, 2)
    )
    assert a == b != c


def test_an_absent_file_has_no_fingerprint(tmp_path):
    config = adapter.validate_python({"format": "ids", "path": "a.txt"})
    for use in (source_fingerprint, read_source):
        with pytest.raises(ValueError, match=r"ids a\.txt: the file .*a\.txt is absent"):
            use(config, tmp_path)
