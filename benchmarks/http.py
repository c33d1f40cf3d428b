"""Recommendations over HTTP: a steady load, bundles swapped and a replica killed under it.

    python -m benchmarks.http [--rate 100] [--seconds 60] [--items 100000] [--only SECTION ...]
                              [--replicas 2] [--proxy haproxy] [--state-store memory]

A made-up bundle (an untrained Hydra of 64 columns, drawn vectors) behind `jobs/serve.py`; the
client runs on the same machine. Half of the requests bring a history of 1 to 50 items,
half name one of 200 users whose events were sent before; each asks for ten items. First answers
over HTTP must be equal to those of the Recommender in this process.

load  requests at a steady rate, open loop: each latency counts from the moment at which the request
      was due. 99% are to come within 100 ms, none to fail.
swap  the same, while bundles are swapped three times; none is to fail.
kill  the same, while a replica's process is killed. Requests in flight fail with it; counted are
      these, the seconds until another replica stands in its place, and the users that are known
      no more (0).

The exit status is 1 where a figure misses its bar. `--quick` is to see that it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.harness import finish
from benchmarks.http_load import Answers, Body, under_load
from benchmarks.http_server import HttpServer
from benchmarks.made_up_bundle import DOMAIN, write_made_up_bundle
from benchmarks.process_tree import ProcessTree
from benchmarks.scan_report import Report
from pipeline import Recommender

P99_BAR = 100.0
_USERS, _LONGEST, _SWAPS, _COMPARED = 200, 50, 3, 50
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Setting:
    """A running server and what is asked of it.

    Attributes:
        server: with the first bundle.
        bundles: two of the same items.
        rate: requests a second.
        seconds: of each section, at least.
        items: of the catalogue.
        quick: latencies mean nothing.
    """

    server: HttpServer
    bundles: tuple[Path, Path]
    rate: float
    seconds: float
    items: int
    quick: bool

    def bodies(self, seed: int) -> Iterator[Body]:
        """Requests, by turns with a history and of a known user."""
        draws = np.random.default_rng(seed)
        for number in itertools.count():
            asked: Body = {"domain": DOMAIN, "k": 10}
            if number % 2:
                yield asked | {"user": _user(int(draws.integers(_USERS)))}
            else:
                yield asked | {"history": _history(draws, self.items)}

    def load(self, report: Report, section: str, seed: int, meanwhile: Any = None) -> Answers:
        """Load the server, and print how long answers took, at whose cost."""
        before, own = os.getloadavg()[0], time.process_time()
        with ProcessTree() as processes:
            began = time.perf_counter()
            answers = under_load(
                self.server.address, self.bodies(seed), self.rate, self.seconds, meanwhile
            )
            taken = time.perf_counter() - began
        own, figures = time.process_time() - own, _figures(answers)
        report.row(
            f"{len(answers.late):,} requests in {taken:.0f} s: "
            + ", ".join(f"{name} {value:.1f} ms" for name, value in figures.items())
            + f"; {answers.errors} errors; CPU {processes.total() / taken:.2f} of a core for the "
            f"server, {own / taken:.2f} for the client; load average {before:.1f} before",
            section=section,
            requests=len(answers.late),
            seconds=taken,
            errors=answers.errors,
            failures=dict(answers.failures),
            server_cpu_seconds=processes.total(),
            client_cpu_seconds=own,
            load_average_before=before,
            cores=os.cpu_count(),
            cpu_seconds_by_process=dict(processes.by_name()),
            versions=dict(answers.versions),
            **figures,
        )
        return answers


def equality(report: Report, setting: Setting) -> None:
    """Answers over HTTP against the Recommender's own; lets the users be known."""
    report.title("Equality")
    recommender, draws = Recommender.load(setting.bundles[0]), np.random.default_rng(1)
    histories = {_user(number): _history(draws, setting.items) for number in range(_USERS)}
    for user, history in histories.items():
        events = [{"user": user, "item": item} for item in history]
        _post(setting.server, "/events", {"domain": DOMAIN, "events": events})
    differ = 0
    for user, history in list(histories.items())[:_COMPARED]:
        own = recommender.recommend(history, 10, domain=DOMAIN)
        for asked in ({"user": user}, {"history": history}):
            answer = _post(setting.server, "/recommend", {"domain": DOMAIN, "k": 10} | asked)
            items = [item["item"] for item in answer["items"]]
            scores = [item["score"] for item in answer["items"]]
            same = items == own.item_ids and np.allclose(scores, own.scores, rtol=1e-4, atol=1e-6)
            differ += not same
    report.check("answers that differ from the Recommender's", differ, 0, "most")


def load_section(report: Report, setting: Setting) -> None:
    """A steady rate."""
    report.title(f"{setting.rate:g} requests a second, {setting.items:,} items")
    if not setting.quick:
        setting.load(report, "warm-up", 2)
    answers = setting.load(report, "load", 3)
    report.check("load: errors", answers.errors, 0, "most")
    if not setting.quick:
        report.check("load: 99% of the answers within, ms", answers.quantile(0.99), P99_BAR, "most")


def swap_section(report: Report, setting: Setting) -> None:
    """Bundles change under the same load."""
    report.title("Bundles swapped under load")
    done: list[int] = []

    async def swaps() -> None:
        for number in range(_SWAPS):
            process = setting.server.swap(setting.bundles[(number + 1) % 2])
            done.append(await asyncio.to_thread(process.wait))

    answers = setting.load(report, "swap", 4, swaps)
    report.check("swap: bundles taken over", done.count(0), _SWAPS, "least")
    report.check("swap: errors", answers.errors, 0, "most")


def kill_section(report: Report, setting: Setting) -> None:
    """One replica is killed under the same load."""
    report.title("A replica killed under load")
    known = _known(setting)
    recovered: list[float] = []

    async def kill() -> None:
        await asyncio.sleep(setting.seconds / 4)
        before = setting.server.replicas().keys()
        setting.server.kill_a_replica()
        began = time.perf_counter()
        while not setting.server.replicas().keys() - before:
            await asyncio.sleep(_LOOK_SECONDS)
        recovered.append(time.perf_counter() - began)

    answers = setting.load(report, "kill", 5, kill)
    lost = sum(after != before for before, after in zip(known, _known(setting), strict=True))
    report.row(
        f"a new replica after {recovered[0]:.1f} s; {answers.errors} of {len(answers.late):,} "
        f"requests failed ({dict(answers.failures)}); {lost} of {_USERS} users lost",
        section="kill",
        recovered_seconds=recovered[0],
        failed_between=[min(answers.failed_at, default=0), max(answers.failed_at, default=0)],
        lost_users=lost,
    )
    report.check("kill: users that were known and are so no more", lost, 0, "most")


SECTIONS: dict[str, Callable[[Report, Setting], None]] = {
    "load": load_section,
    "swap": swap_section,
    "kill": kill_section,
}


def _figures(answers: Answers) -> dict[str, float]:
    shares = {"median": 0.5, "p90": 0.9, "p99": 0.99, "longest": 1.0}
    sent_late = 1e3 * float(np.quantile(answers.late, 0.99))
    return {n: answers.quantile(share) for n, share in shares.items()} | {
        "sent_late_p99": sent_late
    }


def _known(setting: Setting) -> list[Any]:
    """What every user is recommended."""
    asked = {"domain": DOMAIN, "k": 10}
    return [
        _post(setting.server, "/recommend", asked | {"user": _user(number)})["items"]
        for number in range(_USERS)
    ]


def _post(server: HttpServer, path: str, body: Body) -> Any:
    request = urllib.request.Request(
        server.address + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _user(number: int) -> str:
    return f"user-{number}"


def _history(draws: np.random.Generator, items: int) -> list[str]:
    return [f"item-{row}" for row in draws.integers(items, size=draws.integers(1, _LONGEST + 1))]


def main(given: Sequence[str] | None = None) -> int:
    """Run the sections, print the checks and the JSON line; return the exit status."""
    options = _arguments(given)
    items, rate, seconds = options.items, options.rate, options.seconds
    if options.quick:
        items, rate, seconds = 2_000, 20.0, 5.0
    report = Report()
    with TemporaryDirectory() as name:
        bundles = (Path(name, "one"), Path(name, "two"))
        for seed, bundle in enumerate(bundles):
            write_made_up_bundle(bundle, items, seed)
        given_on = ("--state-store", options.state_store, "--proxy", options.proxy)
        with HttpServer(bundles[0], Path(name), options.replicas, given_on) as server:
            setting = Setting(server, bundles, rate, seconds, items, options.quick)
            equality(report, setting)
            for section in options.only or SECTIONS:
                SECTIONS[section](report, setting)
    report.title("Checks")
    return finish("http", report.checks, report.rows)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.http",
        description="recommendations over HTTP: latency under load, swaps and a kill",
    )
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second (100)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each section (60)")
    parser.add_argument("--items", type=int, default=100_000, help="size of the catalogue (100000)")
    parser.add_argument(
        "--state-store", default="memory", help="memory or redis://HOST:PORT/DB (memory)"
    )
    parser.add_argument("--replicas", type=int, default=2, help="of the server (2)")
    parser.add_argument(
        "--proxy", choices=("ray", "haproxy"), default="haproxy", help="of the server (haproxy)"
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections alone (all)")
    parser.add_argument("--quick", action="store_true", help="tiny: to see that it runs")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
