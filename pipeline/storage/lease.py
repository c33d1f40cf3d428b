"""The right to make one output, in an object store: there is no lock that a kernel drops.

The holder writes the lease anew every few seconds. One that has stood unchanged for half a minute
is of a holder that died, or cannot reach the store, and is taken. It saves work and is no guard:
two that make one output at once do no damage, since objects are named by content and the first
manifest counts.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.storage.bucket import Bucket, StorageError

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
SILENT_SECONDS = 30.0
_LOOK_SECONDS = 1.0


@contextmanager
def leased(
    bucket: Bucket, key: str, machine: str, on_wait: Callable[[str], None]
) -> Iterator[None]:
    """Hold a lease while the block runs, waiting for its holder.

    Args:
        bucket: the store.
        key: the lease's object.
        machine: names this machine's mirror, whose file lock the caller holds: a lease of the same
            machine is of a process that died.
        on_wait: told once who holds it.
    """
    lease = _Lease(bucket, key, machine)
    lease.take(on_wait)
    stop = threading.Event()
    beating = threading.Thread(target=lease.beat, args=(stop,), daemon=True, name=f"lease {key}")
    beating.start()
    try:
        yield
    finally:
        stop.set()
        beating.join()
        lease.give_back()


class _Lease:
    def __init__(self, bucket: Bucket, key: str, machine: str) -> None:
        self._bucket, self._key, self._machine = bucket, key, machine
        self._owner = f"process {os.getpid()} on {socket.gethostname()}"
        self._count, self._tag = 0, ""

    def take(self, on_wait: Callable[[str], None]) -> None:
        """Write it where there is none, or over one whose holder is gone."""
        seen, since, told = "", time.monotonic(), False
        while True:
            if tag := self._bucket.write(self._key, self._content(), if_absent=True):
                self._tag = tag
                return
            found = self._bucket.read(self._key)
            if found is None:
                continue
            held = json.loads(found.data)
            if found.tag != seen:
                seen, since = found.tag, time.monotonic()
            silent = time.monotonic() - since >= SILENT_SECONDS
            if silent or held["machine"] == self._machine:
                tag = self._bucket.write(self._key, self._content(), if_tag=found.tag)
                if tag:
                    self._tag = tag
                    return
                continue
            if not told:
                on_wait(held["owner"])
            told = True
            time.sleep(_LOOK_SECONDS)

    def beat(self, stop: threading.Event) -> None:
        """Write it anew until told to stop, or until another has taken it."""
        while not stop.wait(BEAT_SECONDS):
            try:
                tag = self._bucket.write(self._key, self._content(), if_tag=self._tag)
            except StorageError as error:
                log.warning("%s; the lease %s is not renewed", error, self._key)
                continue
            if tag is None:
                log.warning("%s was taken by another process; both make the output", self._key)
                return
            self._tag = tag

    def give_back(self) -> None:
        """Remove it, if it is still ours."""
        try:
            found = self._bucket.read(self._key)
            if found is not None and found.tag == self._tag:
                self._bucket.delete([self._key])
        except StorageError as error:
            log.warning("%s; the lease %s runs out by itself", error, self._key)

    def _content(self) -> bytes:
        self._count += 1
        lease = {"owner": self._owner, "machine": self._machine, "count": self._count}
        return json.dumps(lease, sort_keys=True).encode()
