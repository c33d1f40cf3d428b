"""Users' mistakes: one clear sentence, a status that is not 0, and a run store left as it was."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOOD_ROWS = "".join(f"u{u},i{(u + k) % 7},{1000 + 10 * k}\n" for u in range(12) for k in range(5))


def run_job(config: Path, run_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "jobs/multidomain.py", "--config", str(config), "--run-dir", str(run_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def write_config(
    folder: Path, *, name: str = "shop", extra: str = "", cleaning: str = "{}"
) -> Path:
    path = folder / "run.yaml"
    path.write_text(
        f"store: {folder}/store\n"
        "models: [popularity]\n"
        "domains:\n"
        f"  - name: {name}\n"
        f"    source: {{format: table, interactions: {folder}/events.csv}}\n"
        f"    cleaning: {cleaning}\n{extra}"
    )
    return path


def listing(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\n" + GOOD_ROWS)
    return tmp_path


MISTAKES = {
    "misspelt field": (
        {"extra": "user_modle: {}\n"},
        None,
        ["run.yaml", "user_modle", "did you mean `user_model`"],
    ),
    "absent file": ({}, "remove", ["events.csv", "is absent", "HYDRAREC_DATA"]),
    "empty domain": ({"cleaning": "{k_core: 50}"}, None, ["shop", "empty", "lower k_core"]),
    "unsafe name": ({"name": "../x"}, None, ["'../x'", "cannot be used", "video-games"]),
    "broken line": ({}, "u1,i1\n", ["events.csv:62", "max_bad_rows"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_sentence_and_changes_nothing(mistake, shop):
    settings, damage, words = MISTAKES[mistake]
    good = write_config(shop)
    events = shop / "events.csv"
    if damage == "remove":
        events.unlink()
    elif damage is not None:
        events.write_text(events.read_text() + damage)
    config = write_config(shop, **settings) if settings else good
    (shop / "store" / "kept-0123").mkdir(parents=True)
    (shop / "store" / "kept-0123" / "file").write_text("kept")
    before = listing(shop / "store")
    done = run_job(config, shop / "run")
    assert done.returncode == 2, done.stdout + done.stderr
    sentences = done.stderr.strip().splitlines()
    assert len(sentences) == 1, done.stderr
    assert sentences[0].startswith("error: ")
    for word in words:
        assert word in sentences[0]
    assert listing(shop / "store") == before
    assert sorted(path.name for path in (shop / "store").iterdir()) == ["kept-0123"]


def test_without_a_store_none_is_left_behind(shop):
    done = run_job(write_config(shop, cleaning="{k_core: 50}"), shop / "run")
    assert done.returncode == 2
    assert not (shop / "store").exists()


def test_no_config_says_how_to_give_one():
    done = subprocess.run(
        [sys.executable, "jobs/multidomain.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--config configs/demo.yaml" in done.stderr


def test_help_lists_fields_of_the_config():
    done = subprocess.run(
        [sys.executable, "jobs/multidomain.py", "--config", "configs/demo.yaml", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "--user-model.layers" in done.stdout
