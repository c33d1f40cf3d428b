"""Metrics of several replicas as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from pipeline.serving.server_metrics import ReplicaMetrics, exposition
from pipeline.serving.store import Counts


def samples(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_every_replica_has_its_own_series_and_the_store_one():
    first, second = ReplicaMetrics(), ReplicaMetrics()
    first.answered("/recommend", 200, 0.004)
    first.answered("/recommend", 404, 0.2)
    second.answered("/recommend", 200, 0.03)
    second.received(5, 2)
    second.replayed(3)
    first.answers_with("aaa")
    second.answers_with("aaa")
    second.answers_with("bbb", swapped=True)
    text = exposition({"one": first.families(), "two": second.families()}, Counts(7, 900, 2, None))
    found = samples(text)

    def value(name, **labels):
        return found.get((name, tuple(sorted(labels.items()))))

    asked = "hydrarec_requests_total"
    assert value(asked, replica="one", route="/recommend", status="200") == 1
    assert value(asked, replica="one", route="/recommend", status="404") == 1
    assert value(asked, replica="two", route="/recommend", status="200") == 1
    seconds = {"replica": "one", "route": "/recommend"}
    assert value("hydrarec_request_seconds_bucket", le="0.005", **seconds) == 1
    assert value("hydrarec_request_seconds_bucket", le="0.25", **seconds) == 2
    assert value("hydrarec_request_seconds_count", **seconds) == 2
    assert value("hydrarec_events_total", replica="two", outcome="duplicate") == 2
    assert value("hydrarec_states_replayed_total", replica="two") == 3
    assert value("hydrarec_bundle_info", replica="one", version="aaa") == 1
    assert value("hydrarec_bundle_info", replica="two", version="bbb") == 1
    assert value("hydrarec_bundle_info", replica="two", version="aaa") is None
    assert value("hydrarec_swaps_total", replica="two") == 1
    assert (value("hydrarec_states"), value("hydrarec_states_evicted_total")) == (7, 2)
    assert value("hydrarec_states_expired_total") is None, "the store does not know"
    assert text.count(b"# TYPE hydrarec_requests_total counter") == 1
