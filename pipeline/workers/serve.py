"""A bundle behind Ray Serve: replicas of the HTTP app, and the actor in which they meet."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.serving.desk import Desk, Report
from pipeline.serving.live import Wanted
from pipeline.serving.memory_store import MemoryStore
from pipeline.serving.redis_store import SCHEMES, RedisStore
from pipeline.serving.refused import RefusedError
from pipeline.serving.service import Service, keep_beating
from pipeline.serving.store import Counts, Kept, NewItem, Store
from pipeline.workers.cluster import ComputeConfig, connected

APP = "hydrarec"
_BEAT_SECONDS = 1.0
_MOST_IN_FLIGHT = 64  # requests that a replica works on at once; the others wait in the proxy
_MOST_WAITING = 512  # there; further ones get status 503
_ANSWER_SECONDS = 30.0
_HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"


@dataclass(frozen=True)
class ServeConfig:
    """What is served, and where.

    Attributes:
        wanted: the bundle to begin with.
        host: address to listen at.
        port: TCP port.
        replicas: processes that answer.
        state_store: "memory" or the address of a Redis.
        state_seconds: how long a state is kept after it was last used.
        state_bytes: bound of the store in memory.
        stream_past_window: as of `Recommender.load`.
        proxy: who hands requests to replicas: Ray's own proxy, in Python, or HAProxy.
    """

    wanted: Wanted
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    state_store: str = "memory"
    state_seconds: int = 30 * 86_400
    state_bytes: int = 512 * 2**20
    stream_past_window: bool = False
    proxy: Literal["ray", "haproxy"] = "ray"


class Meeting:
    """The actor in which replicas meet: the desk and, without a Redis, the states.

    It is a process of its own, so that states outlive every replica.
    """

    def __init__(self, config: ServeConfig) -> None:
        self._parts = {
            "desk": Desk(config.wanted),
            "store": MemoryStore(config.state_bytes, config.state_seconds),
        }

    def call(self, part: str, method: str, *arguments: Any) -> Any:
        """Call a method of the desk or of the store."""
        return getattr(self._parts[part], method)(*arguments)


class _Remote:
    def __init__(self, meeting: Any) -> None:
        self._meeting = meeting

    def _ask(self, part: str, method: str, *arguments: Any) -> Any:
        import ray
        from ray.exceptions import GetTimeoutError, RayActorError

        asked = self._meeting.call.remote(part, method, *arguments)
        try:
            return ray.get(asked, timeout=_ANSWER_SECONDS)
        except (GetTimeoutError, RayActorError) as error:
            raise RefusedError(
                503, "no_store", "the store of states does not answer; try again later"
            ) from error


class RemoteDesk(_Remote):
    """The meeting's `Desk`."""

    def announce(self, wanted: Wanted) -> None:
        """All replicas are to answer with this bundle from now on."""
        self._ask("desk", "announce", wanted)

    def wanted(self) -> Wanted:
        """The bundle that replicas are to answer with."""
        return self._ask("desk", "wanted")

    def report(self, report: Report) -> Wanted:
        """Say how a replica stands; learn which bundle is wanted."""
        return self._ask("desk", "report", report)

    def reports(self) -> list[Report]:
        """The last words of all replicas."""
        return self._ask("desk", "reports")


class RemoteStore(_Remote):
    """The meeting's `MemoryStore`."""

    def read(self, key: str) -> Kept | None:
        """The value of a key, which thereby counts as used."""
        return self._ask("store", "read", key)

    def replace(self, key: str, value: bytes, stamp: bytes) -> bool:
        """Write a value if the key's stamp is still `stamp`."""
        return self._ask("store", "replace", key, value, stamp)

    def items_since(self, count: int) -> list[NewItem]:
        """All added items after the first `count`."""
        return self._ask("store", "items_since", count)

    def append_item(self, item: NewItem, count: int) -> bool:
        """Append an item if there are still `count`."""
        return self._ask("store", "append_item", item, count)

    def counts(self) -> Counts:
        """What is held."""
        return self._ask("store", "counts")


class Replica:
    """One process that answers; Serve wraps it as an ASGI app."""

    def __init__(self, config: ServeConfig, meeting: Any) -> None:
        store: Store = RemoteStore(meeting)
        if config.state_store.startswith(SCHEMES):
            store = RedisStore(config.state_store, config.state_seconds)
        self._service = Service(
            RemoteDesk(meeting), store, stream_past_window=config.stream_past_window
        )
        beats = (self._service, _BEAT_SECONDS, lambda: False)
        threading.Thread(target=keep_beating, args=beats, daemon=True).start()

    def __serve_build_asgi_app__(self) -> Any:
        """What Serve asks for once the replica is made."""
        from pipeline.serving.http_app import build_app

        return build_app(self._service)


@contextmanager
def served(config: ServeConfig) -> Iterator[RemoteDesk]:
    """Answer requests for the length of the block, on the Ray of `connected`.

    Yields:
        The desk: bundles are announced there, and replicas report to it.

    Raises:
        ValueError: Ray Serve is not installed, or Ray has no room for the replicas.
    """
    _choose_proxy(config)
    try:
        from ray import serve
    except ImportError as error:
        raise ValueError("serving needs Ray Serve: pip install 'hydrarec[serve]'") from error
    with connected(ComputeConfig()):
        _check_room(config.replicas)
        for name in ("ray.serve", "ray._private.worker"):
            logging.getLogger(name).setLevel(logging.WARNING)
        meeting = _meeting(config)
        serve.start(
            proxy_location="HeadOnly", http_options={"host": config.host, "port": config.port}
        )
        try:
            serve.run(_deployment(config, meeting), name=APP, route_prefix="/")
            yield RemoteDesk(meeting)
        finally:
            # Serve ends its controller in the midst of a call, which Ray would warn of.
            logging.getLogger("ray._private.worker").setLevel(logging.ERROR)
            serve.shutdown()


def _choose_proxy(config: ServeConfig) -> None:
    """Say which proxy in the environment, from where Ray's processes have it."""
    if config.proxy == "ray" or os.environ.get(_HAPROXY) == "1":
        return
    import ray

    if os.environ.get("RAY_ADDRESS") or ray.is_initialized():
        raise ValueError(
            f"--proxy: got haproxy, and the Ray that is joined was started without {_HAPROXY}=1; "
            "start it with that in its environment, and set it here too"
        )
    os.environ[_HAPROXY] = "1"


def _meeting(config: ServeConfig) -> Any:
    import ray

    # Should it die, its states are gone, and a new one begins with the bundle named at the start
    # until the driver announces the present one again.
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Meeting)
    return actor.remote(config)


def _deployment(config: ServeConfig, meeting: Any) -> Any:
    from ray import serve

    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="replica",
        num_replicas=config.replicas,
        max_ongoing_requests=_MOST_IN_FLIGHT,
        max_queued_requests=_MOST_WAITING,
        ray_actor_options={"num_cpus": 1},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
        health_check_period_s=2,
    )
    return deployment.bind(config, meeting)


def _check_room(replicas: int) -> None:
    import ray

    slots = int(ray.cluster_resources().get("CPU", 0))
    if replicas > slots:
        raise ValueError(
            f"--replicas: got {replicas}, expected at most {slots}, the CPUs of this Ray; start "
            "fewer, or join a larger Ray (RAY_ADDRESS)"
        )
