"""From one `Reading` to metric families, in the order of the page. Names, labels and meanings: docs/metrics.md.

Samples are made lazily, a family at a time, so that a renderer can stop between any two of them. No object of the metrics
library is kept between scrapes: what counts is counted elsewhere, as plain integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Literal

from prometheus_client import Metric
from prometheus_client.samples import Sample

from lbproxy.domain.histogram import Histogram
from lbproxy.domain.session import EndReason, Rejection
from lbproxy.metrics.contract import EndpointReading, Reading, UpstreamReading
from lbproxy.metrics.options import MetricsOptions

Labels = dict[str, str]
Kind = Literal["counter", "gauge", "histogram", "info"]

RELOAD_RESULTS = ("applied", "unchanged", "invalid", "failed")

_RELAY_HELP = {
    "submitted_total": "Pairs of sockets handed to the relay.",
    "connected_total": "Upstream connections the relay has seen established.",
    "ended_total": "Sessions the relay has finished.",
    "pending_bytes": "Bytes read from one side and not yet written to the other, over all sessions.",
    "sessions_active": "Sessions the relay holds.",
    "turns_total": "Times the relay woke up.",
    "yields_total": "Times a busy session gave way to the others.",
}


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family. `name` is without the suffix its kind adds (`_total`, `_info`); `samples` can be read once."""

    name: str
    kind: Kind
    help: str
    samples: Iterable[Sample]

    def metric(self, samples: Iterable[Sample]) -> Metric:
        """The library's family with some of the samples."""
        metric = Metric(self.name, self.help, self.kind)
        metric.samples = list(samples)
        return metric


def families(reading: Reading, options: MetricsOptions) -> Iterator[Family]:
    """Every family of the page, in its order; one without a series now still has its HELP and TYPE."""
    yield _family("lbproxy_build", "info", "What runs here.", [(dict(reading.build), 1)])
    yield from _listeners(reading)
    yield from _routes(reading)
    yield from _upstreams(reading)
    yield from _sources(reading)
    yield from _endpoints([_shown(upstream, options) for upstream in reading.upstreams])
    yield from _registrations(reading)
    yield from _process(reading)
    for key, value in reading.relay.items():
        total = key.endswith("_total")
        yield _family(
            f"lbproxy_relay_{key.removesuffix('_total')}",
            "counter" if total else "gauge",
            _RELAY_HELP.get(
                key, f"{key.removesuffix('_total').replace('_', ' ').capitalize()} of the relay."
            ),
            [({}, value)],
        )


def _listeners(reading: Reading) -> Iterator[Family]:
    listeners = [({"listener": one.name}, one) for one in reading.listeners]
    yield _family(
        "lbproxy_listener_connections",
        "counter",
        "Connections accepted by the listener.",
        ((labels, one.accepted) for labels, one in listeners),
    )
    yield _family(
        "lbproxy_listener_connections_active",
        "gauge",
        "Sessions of the listener that are alive.",
        ((labels, one.active) for labels, one in listeners),
    )
    yield _family(
        "lbproxy_listener_connections_rejected",
        "counter",
        "Connections turned away by admission rules or full upstreams, by reason.",
        (
            (labels | {"reason": reason}, count)
            for labels, one in listeners
            for reason, count in _with_zeros(one.rejected, Rejection)
        ),
    )
    yield _family(
        "lbproxy_accept_pauses",
        "counter",
        "Times the listener stopped accepting for a while, at a limit, or out of descriptors or memory.",
        ((labels, one.accept_pauses) for labels, one in listeners),
    )


def _routes(reading: Reading) -> Iterator[Family]:
    routes = [({"listener": one.listener, "upstream": one.upstream}, one) for one in reading.routes]
    yield _family(
        "lbproxy_connections_ended",
        "counter",
        "Sessions that ended, by reason.",
        (
            (labels | {"reason": reason}, count)
            for labels, one in routes
            for reason, count in _with_zeros(one.ended, EndReason)
        ),
    )
    yield _histogram(
        "lbproxy_connection_duration_seconds",
        "Time from accept to the end of a session.",
        ((labels, one.duration) for labels, one in routes),
    )


def _upstreams(reading: Reading) -> Iterator[Family]:
    upstreams = [({"upstream": one.name}, one) for one in reading.upstreams]
    yield _family(
        "lbproxy_upstream_endpoints_eligible",
        "gauge",
        "Endpoints of the upstream that new sessions may go to.",
        ((labels, one.eligible) for labels, one in upstreams if one.eligible is not None),
    )
    yield _histogram(
        "lbproxy_upstream_connect_duration_seconds",
        "Time an established connection to an endpoint took to establish.",
        ((labels, one.connect_duration) for labels, one in upstreams),
    )
    yield _family(
        "lbproxy_session_connect_attempts",
        "counter",
        "Dials made for sessions, first ones and repeated ones.",
        ((labels, one.connect_attempts) for labels, one in upstreams),
    )
    yield _family(
        "lbproxy_sessions_waiting",
        "gauge",
        "Sessions that wait before they are dialled for again.",
        ((labels, one.waiting) for labels, one in upstreams),
    )


def _sources(reading: Reading) -> Iterator[Family]:
    sources = [
        ({"upstream": upstream.name, "source": source.name}, source)
        for upstream in reading.upstreams
        for source in upstream.sources
    ]
    yield _family(
        "lbproxy_discovery_updates",
        "counter",
        "Answers of the source, and tries that gave none (error), by what became of them.",
        (
            (labels | {"result": result}, count)
            for labels, one in sources
            for result, count in one.results.items()
        ),
    )
    yield _family(
        "lbproxy_discovery_age_seconds",
        "gauge",
        "Time since everything the source said was known to hold.",
        ((labels, one.age_s) for labels, one in sources),
    )
    yield _family(
        "lbproxy_discovery_held",
        "gauge",
        "Endpoints that are in force although the source no longer names them.",
        ((labels, one.held) for labels, one in sources),
    )
    yield _family(
        "lbproxy_discovery_refused_entries",
        "counter",
        "Entries of the source that were not taken, by reason.",
        (
            (labels | {"reason": reason}, count)
            for labels, one in sources
            for reason, count in one.refused.items()
        ),
    )


def _endpoints(shown: Sequence[tuple[str, Sequence[EndpointReading]]]) -> Iterator[Family]:
    def each() -> Iterator[tuple[Labels, EndpointReading]]:
        for upstream, endpoints in shown:
            for one in endpoints:
                yield {"upstream": upstream, "endpoint": one.label}, one

    prefix = "lbproxy_endpoint_"
    yield _family(
        f"{prefix}connections",
        "counter",
        "Sessions that were connected to the endpoint.",
        ((labels, one.total) for labels, one in each()),
    )
    yield _family(
        f"{prefix}connections_active",
        "gauge",
        "Sessions on the endpoint, counted from the moment it is chosen.",
        ((labels, one.active) for labels, one in each()),
    )
    yield _family(
        f"{prefix}connect_failures",
        "counter",
        "Dials to the endpoint that failed, by reason.",
        (
            (labels | {"reason": str(reason)}, count)
            for labels, one in each()
            for reason, count in one.connect_failures.items()
        ),
    )
    yield _family(
        f"{prefix}sent_bytes",
        "counter",
        "Bytes of clients that the endpoint's socket took.",
        ((labels, one.sent_bytes) for labels, one in each()),
    )
    yield _family(
        f"{prefix}received_bytes",
        "counter",
        "Bytes of the endpoint that clients' sockets took.",
        ((labels, one.received_bytes) for labels, one in each()),
    )
    yield _family(
        f"{prefix}eligible",
        "gauge",
        "Whether new sessions go to the endpoint (1) or not (0).",
        ((labels, int(one.eligible)) for labels, one in each()),
    )
    yield _family(
        f"{prefix}weight",
        "gauge",
        "The endpoint's weight in force.",
        ((labels, one.weight) for labels, one in each()),
    )


def _registrations(reading: Reading) -> Iterator[Family]:
    services = [({"service": one.service, "id": one.id}, one) for one in reading.registrations]
    yield _family(
        "lbproxy_registration_registered",
        "gauge",
        "Whether the registry has acknowledged the service (1) or not (0).",
        ((labels, int(one.registered)) for labels, one in services),
    )
    yield _family(
        "lbproxy_registration_failures",
        "counter",
        "Calls to the registry about the service that were not acknowledged.",
        ((labels, one.failures) for labels, one in services),
    )


def _process(reading: Reading) -> Iterator[Family]:
    yield _family(
        "lbproxy_config_reloads",
        "counter",
        "Reloads of the configuration, by result.",
        (({"result": result}, count) for result, count in _with_zeros(reading.reloads, RELOAD_RESULTS)),
    )
    yield _family(
        "lbproxy_config_last_reload_successful",
        "gauge",
        "Whether the last reload succeeded (1) or left the old configuration in force (0).",
        [({}, int(reading.last_reload_successful))],
    )
    yield _family(
        "lbproxy_access_log_dropped",
        "counter",
        "Access log records lost because the log could not be written fast enough.",
        [({}, reading.access_log_dropped)],
    )


def _shown(upstream: UpstreamReading, options: MetricsOptions) -> tuple[str, Sequence[EndpointReading]]:
    match options.endpoints:
        case "all":
            return upstream.name, list(upstream.endpoints)
        case "none":
            return upstream.name, ()
        case number:
            return upstream.name, nlargest(number, upstream.endpoints, key=lambda one: one.total)


def _with_zeros(counts: Mapping[str, int], known: Iterable[str]) -> Iterator[tuple[str, int]]:
    """The whole closed set: a series that appears with its first event hides that event from rate()."""
    names = {str(name): 0 for name in known} | {str(name): count for name, count in counts.items()}
    return iter(names.items())


_SUFFIX = {"counter": "_total", "gauge": "", "info": "_info"}


def _family(name: str, kind: Kind, documentation: str, rows: Iterable[tuple[Labels, float]]) -> Family:
    sample_name = name + _SUFFIX[kind]
    return Family(name, kind, documentation, (Sample(sample_name, labels, value) for labels, value in rows))


def _histogram(name: str, documentation: str, rows: Iterable[tuple[Labels, Histogram]]) -> Family:
    def samples() -> Iterator[Sample]:
        for labels, histogram in rows:
            # Copied at once: sessions go on between the slices of a page, and the count must be that of the buckets.
            counts, total = list(histogram.counts), histogram.sum
            cumulated = 0
            for bound, count in zip(histogram.bounds, counts, strict=False):
                cumulated += count
                yield Sample(f"{name}_bucket", labels | {"le": repr(bound)}, cumulated)
            cumulated += counts[-1]
            yield Sample(f"{name}_bucket", labels | {"le": "+Inf"}, cumulated)
            yield Sample(f"{name}_count", labels, cumulated)
            yield Sample(f"{name}_sum", labels, total)

    return Family(name, "histogram", documentation, samples())
