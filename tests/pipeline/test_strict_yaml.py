import pytest

from pipeline.strict_yaml import load_mapping


def read(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return load_mapping(path)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-4", 1e-4), ("-2E3", -2000.0), ("1.5e3", 1500.0), (".5", 0.5), ("3", 3), ("1.0", 1.0)],
)
def test_exponents_without_a_dot_are_numbers(tmp_path, text, number):
    assert read(tmp_path, f"lr: {text}") == {"lr": number}


@pytest.mark.parametrize("text", ["007a", "1e", "e5", "NA", "1-2"])
def test_words_stay_words(tmp_path, text):
    assert read(tmp_path, f"id: {text}") == {"id": text}


def test_duplicate_keys_are_refused_with_both_lines(tmp_path):
    with pytest.raises(ValueError, match=r"'lr' stands twice \(lines 2 and 4\)"):
        read(tmp_path, "training:\n  lr: 1\n  epochs: 2\n  lr: 3\n")


def test_duplicate_keys_are_refused_in_anchors_and_merges_too(tmp_path):
    with pytest.raises(ValueError, match="'lr' stands twice"):
        read(tmp_path, "base: &base {lr: 1, lr: 2}\nother: *base\n")
    with pytest.raises(ValueError, match=r"'lr' stands twice \(lines 4 and 5\)"):
        read(tmp_path, "base: &base {lr: 1}\nother:\n  <<: *base\n  lr: 2\n  lr: 3\n")
    with pytest.raises(ValueError, match="'<<' stands twice"):
        read(tmp_path, "a: &a {x: 1}\nb: &b {y: 1}\nc:\n  <<: *a\n  <<: *b\n")


def test_a_merged_key_gives_way_to_ones_own_and_numbers_stay_numbers(tmp_path):
    text = "base: &base {lr: 1e-4, epochs: 3}\nother: {<<: *base, epochs: 5}\nsame: *base\n"
    content = read(tmp_path, text)
    assert content["other"] == {"lr": 1e-4, "epochs": 5}
    assert content["same"] == {"lr": 1e-4, "epochs": 3}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("- a\n- b\n", "holds list"), ("a: [1, 2\n", "not valid YAML"), ("", "holds NoneType")],
)
def test_what_is_not_a_mapping_is_named(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        read(tmp_path, text)


def test_absent_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.yaml: there is no such file"):
        load_mapping(tmp_path / "nowhere.yaml")


def test_python_objects_are_not_made(tmp_path):
    with pytest.raises(ValueError, match="not valid YAML"):
        read(tmp_path, "a: !!python/object/apply:os.getcwd []\n")
