#!/usr/bin/env python
"""Answer HTTP requests from a bundle: recommendations, events, new items, a page.

    python jobs/serve.py --bundle bundles/shop
    python jobs/serve.py swap bundles/shop-of-today

The first command runs until it is told to stop (Ctrl-C, SIGTERM). The second
one lets a running server take another bundle, which is loaded beside the old
one and answers once it is whole; no request is dropped. States of users are
kept in memory, or in a Redis, where they outlive the server; a bundle with
other weights computes them anew from the last events.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.command_line import finished, job_parser
from pipeline.paths import project_root, resolve, resolve_place

if TYPE_CHECKING:
    from pipeline.serving.control import Control, Status
    from pipeline.serving.live import Wanted
    from pipeline.workers.serve import RemoteDesk, ServeConfig

_LOOK_SECONDS = 0.5
_SWAP_SECONDS = 600.0
_MEMORY = "memory"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status, as `finished` does."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["swap"]:
        swapping = _swap_parser().parse_args(given[1:])
        return finished(lambda: swap(swapping))
    serving = _parser().parse_args(given)
    return finished(lambda: serve(serving))


def serve(options: argparse.Namespace) -> None:
    """Serve until the process is told to stop."""
    from pipeline.interrupts import Interrupted, leave
    from pipeline.serving.control import wanted_of
    from pipeline.workers.serve import served

    _check_free(options.host, options.port)
    wanted = wanted_of(resolve_place(options.bundle, project_root()))
    config = _config(options, wanted)
    control = _control(options)
    control.want(wanted)
    print(f"bundle {wanted.version}: starting {options.replicas} replica(s) ...", flush=True)
    try:
        with served(config) as desk:
            _follow(desk, control, config)
    except Interrupted as interrupted:
        control.leave()
        kept = "" if config.state_store != _MEMORY else "; states in memory are gone"
        print(f"stopped{kept}", file=sys.stderr, flush=True)
        leave(interrupted.status)
    control.leave()


def swap(options: argparse.Namespace) -> None:
    """Let the running server take another bundle; returns once every replica has it."""
    bundle = resolve_place(options.bundle, project_root())
    status = _control(options).swap(bundle, options.timeout, lambda said: print(said, flush=True))
    (version,) = {replica.version for replica in status.replicas.values()}
    print(f"bundle {version} answers on {len(status.replicas)} replica(s) at {status.address}")


def _follow(desk: RemoteDesk, control: Control, config: ServeConfig) -> None:
    """Hand on which bundle is wanted, and say who has it, for ever."""
    address = f"http://{config.host}:{config.port}"
    say = _Teller(address, config, control)
    while True:
        try:
            wanted = control.wanted()
            desk.announce(wanted)
            say(wanted, control.say(address, config.replicas, desk.reports()))
        except (ValueError, OSError) as error:
            say.mistake(str(error))
        time.sleep(_LOOK_SECONDS)


class _Teller:
    """Prints what has changed, once."""

    def __init__(self, address: str, config: ServeConfig, control: Control) -> None:
        self._address, self._config, self._control = address, config, control
        self._said = ""

    def __call__(self, wanted: Wanted, status: Status) -> None:
        """Say which bundle answers, or why the wanted one does not."""
        if refusals := status.refusals(wanted.version):
            self._once(f"bundle {wanted.version} is refused: {refusals[0]}")
        elif status.has(wanted.version):
            store = "memory" if self._config.state_store == _MEMORY else "Redis"
            self._once(
                f"bundle {wanted.version} answers at {self._address} on {len(status.replicas)} "
                f"replica(s); states in {store}; control folder {self._control.folder}"
            )

    def mistake(self, said: str) -> None:
        """Say what is wrong."""
        self._once(f"error: {said}")

    def _once(self, said: str) -> None:
        if said != self._said:
            print(said, flush=True)
            self._said = said


def _config(options: argparse.Namespace, wanted: Wanted) -> ServeConfig:
    from pipeline.serving.redis_store import SCHEMES
    from pipeline.workers.serve import ServeConfig

    if options.state_store != _MEMORY and not options.state_store.startswith(SCHEMES):
        raise ValueError(
            f"--state-store: got {options.state_store!r}, expected {_MEMORY} or an address that "
            f"begins with {' or '.join(SCHEMES)}"
        )
    return ServeConfig(
        wanted,
        host=options.host,
        port=options.port,
        replicas=options.replicas,
        state_store=options.state_store,
        state_seconds=round(options.state_days * 86_400),
        state_bytes=options.state_mb * 2**20,
        stream_past_window=options.stream_past_window,
        proxy=options.proxy,
    )


def _control(options: argparse.Namespace) -> Control:
    from pipeline.serving.control import Control

    folder = options.control or Path("runs") / "serve" / str(options.port)
    return Control(resolve(folder, project_root()))


def _check_free(host: str, port: int) -> None:
    try:
        with closing(socket.create_server((host, port))):
            return
    except OSError as error:
        raise ValueError(
            f"--host, --port: cannot listen at {host}:{port} ({error.strerror}); give others"
        ) from error


def _at_least(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of {least} or more")
        return int(text)

    return count


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 1e-4 <= days <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0.0001 to 36500")
    return days


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is no TCP port, 1 to 65535")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(
        "jobs/serve.py",
        __doc__,
        usage="%(prog)s --bundle BUNDLE [options]\n       %(prog)s swap BUNDLE [--port PORT]",
    )
    parser.add_argument(
        "--bundle",
        required=True,
        metavar="BUNDLE",
        help="what `python -m pipeline.export` wrote: a folder, relative to the project, or an "
        "s3:// address",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen at; there is no login, so put a gateway before others than this "
        "machine (default: 127.0.0.1)",
    )
    _add_place(parser)
    parser.add_argument(
        "--replicas",
        type=_at_least(1),
        default=1,
        metavar="N",
        help="processes that answer, one CPU each (default: 1)",
    )
    parser.add_argument(
        "--proxy",
        choices=("ray", "haproxy"),
        default="ray",
        help="who hands requests to replicas: ray, which lets them wait where no replica is there, "
        "or haproxy, at half the CPU time, which refuses them then (default: ray)",
    )
    _add_states(parser)
    return parser


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port", type=_port, default=8000, metavar="PORT", help="TCP port (default: 8000)"
    )
    parser.add_argument(
        "--control",
        type=Path,
        metavar="DIR",
        help="folder through which `swap` reaches the server; relative to the project (default: "
        "runs/serve/PORT)",
    )


def _add_states(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state-store",
        default=_MEMORY,
        metavar="STORE",
        help="where states of users are: memory, or redis://HOST:PORT/DB (default: memory)",
    )
    parser.add_argument(
        "--state-days",
        type=_days,
        default=30.0,
        metavar="DAYS",
        help="how long a state is kept after it was last used (default: 30)",
    )
    parser.add_argument(
        "--state-mb",
        type=_at_least(1),
        default=512,
        metavar="MB",
        help="bound of the store in memory; states used longest ago leave first (default: 512)",
    )
    parser.add_argument(
        "--stream-past-window",
        action="store_true",
        help="let users go on past split.max_history, the events that the model was trained with "
        "(default: compute their state anew from the latest)",
    )


def _swap_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        "jobs/serve.py swap", "Let a running server answer with another bundle; see jobs/serve.py."
    )
    parser.add_argument(
        "bundle",
        metavar="BUNDLE",
        help="its folder, relative to the project, or its s3:// address",
    )
    _add_place(parser)
    parser.add_argument(
        "--timeout",
        type=float,
        default=_SWAP_SECONDS,
        metavar="SECONDS",
        help="how long to wait for all replicas (default: 600)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
