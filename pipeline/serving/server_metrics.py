"""What Prometheus is told: counters and histograms of each replica, gauges of the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric

from pipeline.serving.store import Counts

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Family(NamedTuple):
    """One metric of one replica, as plain values that can travel.

    Attributes:
        samples: name, labels and value of each.
    """

    name: str
    documentation: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


class ReplicaMetrics:
    """What one replica counts."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "hydrarec_requests", "Requests answered", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "hydrarec_request_seconds",
            "Seconds from a request's head to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._events = Counter(
            "hydrarec_events", "Events received", ["outcome"], registry=self._registry
        )
        self._replays = Counter(
            "hydrarec_states_replayed",
            "States computed anew from kept events, for another bundle",
            registry=self._registry,
        )
        self._swaps = Counter("hydrarec_swaps", "Bundles taken over", registry=self._registry)
        self._bundle = Gauge(
            "hydrarec_bundle_info", "The bundle that answers", ["version"], registry=self._registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def received(self, applied: int, duplicates: int) -> None:
        """Count events."""
        self._events.labels("applied").inc(applied)
        self._events.labels("duplicate").inc(duplicates)

    def replayed(self, states: int) -> None:
        """Count states that were computed anew."""
        self._replays.inc(states)

    def answers_with(self, version: str, *, swapped: bool = False) -> None:
        """Say which bundle answers from now on."""
        self._bundle.clear()
        self._bundle.labels(version).set(1)
        self._swaps.inc(int(swapped))

    def families(self) -> list[Family]:
        """Everything that was counted until now."""
        return [
            Family(
                metric.name,
                metric.documentation,
                metric.type,
                [(s.name, dict(s.labels), s.value) for s in metric.samples],
            )
            for metric in self._registry.collect()
        ]


def exposition(replicas: Mapping[str, Iterable[Family]], counts: Counts) -> bytes:
    """Prometheus's text format: every replica's counts under a label, and the store's.

    Args:
        replicas: by the name of the replica.
        counts: of the store that all of them share.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(replicas, counts))
    return generate_latest(registry)


class _Collector:
    def __init__(self, replicas: Mapping[str, Iterable[Family]], counts: Counts) -> None:
        self._replicas, self._counts = replicas, counts

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for replica, families in self._replicas.items():
            for family in families:
                metric = merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.kind)
                )
                for name, labels, value in family.samples:
                    metric.add_sample(name, labels | {"replica": replica}, value)
        yield from merged.values()
        yield from _of_store(self._counts)


def _of_store(counts: Counts) -> Iterator[Metric]:
    rows = (
        ("hydrarec_states", "States held", "gauge", counts.states),
        ("hydrarec_state_bytes", "Bytes of states held", "gauge", counts.state_bytes),
        ("hydrarec_states_evicted", "States that left for want of room", "counter", counts.evicted),
        ("hydrarec_states_expired", "States not used in time", "counter", counts.expired),
    )
    for name, documentation, kind, value in rows:
        if value is not None:
            metric = Metric(name, documentation, kind)
            metric.add_sample(name + ("_total" if kind == "counter" else ""), {}, value)
            yield metric
