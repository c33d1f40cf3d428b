"""Fuzz one target with Atheris: python -m tests.fuzz.fuzz TARGET [options of libFuzzer].

    python -m tests.fuzz.fuzz jsonl -max_total_time=600

The seeds are tests/fuzz/corpus/TARGET, which is only read. A crash leaves its input in
build/fuzz/, and is mended and kept as a seed.
"""

import shutil
import sys
from pathlib import Path

import atheris

READERS = [
    "json",
    "pipeline.sources",
    "pipeline.artifacts",
    "pipeline.whole_files",
    "item_llm.folders",
    "user_model.checkpoint",
]
with atheris.instrument_imports(include=READERS):
    from tests.fuzz.targets import FOLDER, TARGETS

    TARGETS[sys.argv[1]](b"")  # imports what it needs

HERE = Path(__file__).parent
FOUND = HERE.parents[1] / "build" / "fuzz"


def main():
    """Run until time, runs or a crash end it."""
    name, *options = sys.argv[1:]
    FOUND.mkdir(parents=True, exist_ok=True)
    aside = FOLDER / "corpus"
    aside.mkdir()
    arguments = [sys.argv[0], str(aside), str(HERE / "corpus" / name)]
    arguments += [f"-artifact_prefix={FOUND}/{name}-", "-max_len=4096", *options]
    atheris.Setup(arguments, TARGETS[name])
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()
