"""Trackers that go wrong in each way that one can; they run in a process of their own."""

import os
import threading
import time
from pathlib import Path


class Good:
    """Writes what it is told into the run's folder."""

    def start(self, run):
        self.path = Path(run.folder) / "told"
        self.say(f"start {run.name} {run.parameters['seed']}")

    def log(self, record):
        self.say(f"log {record.named()} {record.figures.step} {record.figures.epoch}")

    def finish(self, status, parameters):
        self.say(f"finish {status} {dict(parameters)}")

    def say(self, text):
        with self.path.open("a") as stream:
            stream.write(text + "\n")


class Raising:
    def __init__(self, *, at="start"):
        self.at = at

    def start(self, run):
        if self.at == "start":
            raise ConnectionError("no route\nto host")

    def log(self, record):
        raise ConnectionError("no route to host")

    def finish(self, status, parameters):
        raise ConnectionError("no route to host")


class Blocking(Good):
    """Blocks for ever with the first record."""

    def start(self, run):
        super().start(run)
        (Path(run.folder) / "pid").write_text(str(os.getpid()))

    def log(self, record):
        threading.Event().wait()


class Crashing(Good):
    def log(self, record):
        os._exit(3)


class Slow(Good):
    def log(self, record):
        time.sleep(0.2)
        super().log(record)


class Chatty(Good):
    def log(self, record):
        print("something on the standard output")
        super().log(record)
