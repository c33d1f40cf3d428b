"""Drivers as processes, to be killed at one exact touch of the file system or run out of disk.

They do their workers' work themselves (`compute.in_process`), so that nothing happens side by side.
"""

import json
import multiprocessing
import re
import resource
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.jobs.conftest import TINY
from tests.pipeline.faults.fatal_touch import Touches, signal_at_write

# A server of clean processes: each starts in milliseconds, with the imports done.
START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["jobs.multidomain", "pipeline.run", "scipy.sparse", __name__])
ALL = TINY | {"compute": {"workers": 1, "in_process": True}}
SASREC = ALL | {"models": ["popularity", "sasrec"], "domains": TINY["domains"][:1]}
_STAGE_ENDS = re.compile(r"\] (\S+): (ran|resumed|reused)")


def drive(driver, fatal, number, stop_at, largest_file):
    """One driver, from its command line to its exit status.

    Args:
        driver: whose command it is.
        fatal: the touch at which it gets signal `number`; None: none.
        number: SIGKILL, or SIGSTOP.
        stop_at: the step of the item LLM at which it gets a signal, and its number; None: none.
        largest_file: bytes that a file may have; None: any number.
    """
    from jobs import multidomain

    began = time.monotonic()
    sys.stdout = sys.stderr = driver.log.open("a", buffering=1)
    touches = Touches(driver.store, driver.run_dir, fatal, number)
    if stop_at is not None:
        signal_at_write("steps.jsonl", *stop_at)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    status = multidomain.main(driver.arguments)
    if largest_file is None:
        (driver.folder / "touches.json").write_text(json.dumps(touches.counts))
    print(f"CPU {time.process_time():.1f} s, {time.monotonic() - began:.1f} s")
    sys.exit(status)


class Driver:
    """A config with its store and its run's folder, and the process, started as often as it takes.

    Args:
        folder: of all of it.
        content: the config.
        store: the run store; None: in the folder.
    """

    def __init__(self, folder, content, store=None):
        folder.mkdir()
        self.seconds = []  # of each start
        self.folder, self.run_dir, self.log = folder, folder / "run", folder / "log"
        self.store = folder / "store" if store is None else store
        self.config = folder / "run.yaml"
        self.config.write_text(yaml.safe_dump(content | {"store": str(self.store)}))
        self.arguments = ["--config", str(self.config), "--run-dir", str(self.run_dir)]

    def start(self, fatal=None, stop_at=None, largest_file=None):
        """Run it to its end; the exit status, or the negative number of the signal."""
        began = time.monotonic()
        process = self._begun(fatal, signal.SIGKILL, stop_at, largest_file)
        process.join()
        self.seconds.append(time.monotonic() - began)
        return process.exitcode

    @contextmanager
    def paused(self, touch):
        """Its process, held at a touch for the length of the block, then killed."""
        process = self._begun(touch, signal.SIGSTOP, None, None)
        stat, deadline = Path(f"/proc/{process.pid}/stat"), time.monotonic() + 60
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < deadline, "it never came there"
            time.sleep(0.02)
        yield process.pid
        process.kill()
        process.join()

    def _begun(self, *how):
        process = START.Process(target=drive, args=(self, *how))
        process.start()
        return process

    @property
    def touches(self):
        """How often the last driver that was not killed touched the files of each stage."""
        return json.loads((self.folder / "touches.json").read_text())

    @property
    def made(self):
        """How often each stage was made, over all starts."""
        return Counter(
            name for name, status in _STAGE_ENDS.findall(self.log.read_text()) if status != "reused"
        )

    @property
    def metrics(self):
        """The figures, or b"" where there are none."""
        file = self.run_dir / "metrics.json"
        return file.read_bytes() if file.is_file() else b""

    @property
    def last_words(self):
        """The sentence of an error, and the CPU seconds of the process that said it."""
        lines = self.log.read_text().splitlines()
        seconds = float(re.match(r"CPU (\S+) s", lines[-1])[1])
        return lines[-2], seconds

    def half_made(self):
        """Files that stand about though no output and no checkpoint has them."""
        asides = [*self.run_dir.glob(".*.tmp"), *self.store.rglob(".*.tmp")]
        begun = (self.store / ".work").glob("*/*")
        return [str(path) for path in [*asides, *begun] if path.name != ".scratch"]
