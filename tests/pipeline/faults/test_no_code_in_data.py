"""Data are strangers' data: nothing that is read can run, and names stay within their folders."""

import ast
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.config import RunConfig
from pipeline.strict_yaml import load_mapping

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[3]
SOURCES = [
    path
    for package in ("jobs", "pipeline", "item_llm", "user_model", "benchmarks")
    for path in sorted((ROOT / package).rglob("*.py"))
]
# Each can make a program out of a file.
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code"}
CALLS = {"eval", "exec", "torch.load", "torch.save", "pickle.loads", "yaml.unsafe_load"}
# What must be said, and how, wherever the call stands.
MUST_SAY = {"np.load": ("allow_pickle", False)}
MAY_NOT_SAY = {"trust_remote_code": True, "allow_pickle": True, "weights_only": False}


def faults_of(tree):
    """What in a module's code can run what stands in a file."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                yield module
            case ast.Call(func=func, keywords=keywords):
                name, said = ast.unparse(func), {k.arg: k.value for k in keywords}
                values = {k: v.value for k, v in said.items() if isinstance(v, ast.Constant)}
                if name in CALLS:
                    yield name
                if name in MUST_SAY and values.get(MUST_SAY[name][0]) is not MUST_SAY[name][1]:
                    yield f"{name} without {MUST_SAY[name][0]}"
                for word, value in MAY_NOT_SAY.items():
                    if word in said and values.get(word) is not (not value):
                        yield f"{name}({word}=...)"


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import pickle", "pickle"),
        ("from cloudpickle import dumps", "cloudpickle"),
        ("torch.load(path)", "torch.load"),
        ("np.load(path)", "np.load without allow_pickle"),
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", "trust_remote_code"),
        ("AutoModel.from_pretrained(x, trust_remote_code=asked)", "trust_remote_code"),
        ("eval(text)", "eval"),
    ],
)
def test_the_search_finds_what_it_looks_for(code, fault):
    assert any(fault in found for found in faults_of(ast.parse(code)))


def test_no_package_reads_a_pickle_or_runs_what_it_reads():
    assert len(SOURCES) > 250
    found = {
        str(path.relative_to(ROOT)): faults
        for path in SOURCES
        if (faults := sorted(faults_of(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == {}


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "/etc", "..", ".hidden", "", "a" * 65, "a b", "a\0", "a\n", "<script>", "A"],
)
def test_a_domains_name_is_no_path(name):
    source = {"format": "ids", "path": "x.txt"}
    with pytest.raises(ValidationError, match="cannot be used"):
        RunConfig.model_validate({"domains": [{"name": name, "source": source}]})


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.getcwd []", "!!python/name:os.system"])
def test_a_config_makes_no_objects(tag, tmp_path):
    (tmp_path / "run.yaml").write_text(f"name: {tag}\n")
    with pytest.raises(ValueError, match="python/"):
        load_mapping(tmp_path / "run.yaml")
