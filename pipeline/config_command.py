"""python -m pipeline.config: the config's schema, a resolved config, or what is wrong with one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.config import RunConfig, load

_SCHEMA = "https://json-schema.org/draft/2020-12/schema"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, or 2 where the user has something to mend."""
    parser = _parser()
    options, overrides = parser.parse_known_args(arguments)
    if overrides and options.command != "show":
        parser.error(f"unknown option {overrides[0]}; only `show` takes overrides")
    try:
        status = _run(options, overrides)
        sys.stdout.flush()
    except ValueError as error:
        _complain(error)
        return 2
    except BrokenPipeError:  # `... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def schema() -> str:
    """The config's JSON Schema (draft 2020-12), for editors."""
    content = {"$schema": _SCHEMA} | RunConfig.model_json_schema()
    return json.dumps(content, indent=1)


def show(config: RunConfig) -> str:
    """The whole config as YAML, with every default; the same config when it is read again."""
    content = config.model_dump(mode="json")
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=80)


def validate(files: Sequence[Path]) -> int:
    """Say `FILE: ok`, or a sentence for each mistake; 2 if there are any."""
    status = 0
    for file in files:
        try:
            load(file)
        except ValueError as error:
            _complain(error)
            status = 2
        else:
            print(f"{file}: ok")
    return status


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    if options.command == "validate":
        return validate(options.files)
    print(schema() if options.command == "schema" else show(load(options.file, overrides)).rstrip())
    return 0


def _complain(error: ValueError) -> None:
    for sentence in str(error).splitlines():
        print(f"error: {sentence}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.config", description=__doc__, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "schema",
        help="print the JSON Schema of a run's YAML file",
        description="Print the JSON Schema of a run's YAML file. Editors complete and check "
        "with it: put `# yaml-language-server: $schema=FILE` into the first line.",
    )
    shown = commands.add_parser(
        "show",
        help="print the whole config, with every default",
        description="Print the whole config as YAML, with every default. Fields can be "
        "overridden as for jobs/multidomain.py: --user-model.layers 4.",
        allow_abbrev=False,
    )
    shown.add_argument("file", type=Path, metavar="FILE", help="the run's YAML file")
    checked = commands.add_parser(
        "validate",
        help="say ok, or what is wrong",
        description="Say ok for each file, or a sentence for each mistake in it, with status 2. "
        "No data are read.",
    )
    checked.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="a run's YAML file; several may be given",
    )
    return parser
