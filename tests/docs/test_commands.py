"""Every command of every page: run here as it is written, or run by a test that is named here."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from command_tests import AS_WRITTEN, COMMANDS, JOBS, NOT_RUN
from page_parts import GENERATED, PAGES, ROOT, Command, blocks, commands, node_exists

ALL = [command for page in PAGES for command in commands(page)]
WRITTEN = sorted({" ".join(c.words) for c in ALL if AS_WRITTEN.match(" ".join(c.words))})


def who_runs(command: Command) -> tuple[str, ...]:
    text = " ".join(command.words)
    if AS_WRITTEN.match(text) and text in WRITTEN:
        return ("tests/docs/test_commands.py::test_a_command_runs_as_it_is_written",)
    found = [test for pattern, test in COMMANDS.items() if re.fullmatch(pattern, text)]
    found += [test for pattern, (_, test) in NOT_RUN.items() if re.fullmatch(pattern, text)]
    return tuple(found[:1])


@pytest.mark.parametrize("page", PAGES)
def test_every_command_has_a_test_that_runs_it(page):
    without = [str(command) for command in commands(page) if not who_runs(command)]
    assert without == [], "add a test that runs it, and name it in COMMANDS"


def test_the_tests_named_here_exist_and_none_is_named_in_vain():
    named = {*COMMANDS.values(), *(test for _, test in NOT_RUN.values())}
    assert [test for test in sorted(named) if not node_exists(test)] == []
    texts = [" ".join(command.words) for command in ALL]
    unused = [p for p in (*COMMANDS, *NOT_RUN) if not any(re.fullmatch(p, t) for t in texts)]
    assert unused == []


def test_a_command_that_nobody_runs_would_be_found():
    new = Command("README.md", 1, "python jobs/serve.py --config configs/demo.yaml", {}, False)
    assert who_runs(new) == ()
    assert not node_exists(f"{JOBS}test_multidomain.py::test_that_is_not_there")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder that looks like a checkout, where commands may write."""
    for name in ("configs", "jobs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRAREC_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("text", WRITTEN)
def test_a_command_runs_as_it_is_written(text, checkout, capsys):
    status = run(shlex.split(text), checkout)
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert printed.out.strip()
    assert {path.name for path in checkout.iterdir()} == {"configs", "jobs"}, "nothing is written"


def run(words: list[str], folder: Path) -> int:
    """`python jobs/X.py ...` or `python -m MODULE ...` by the main function of the program."""
    script, arguments = (words[2], words[3:]) if words[1] == "-m" else (words[1], words[2:])
    names = {"pipeline.config": "pipeline.config_command"}
    module = names.get(script, script.removesuffix(".py").replace("/", "."))
    given = [
        str(path)
        for word in arguments
        for path in (sorted(folder.glob(word)) if "*" in word else [word])
    ]
    try:
        return importlib.import_module(module).main(given)
    except SystemExit as ended:
        return int(ended.code or 0)


def test_no_block_of_a_page_is_without_its_language():
    bare = [
        str(b) for page in PAGES if page not in GENERATED for b in blocks(page) if not b.language
    ]
    assert bare == [], "fence it as sh, yaml, python or text: only then it is tested as what it is"
