"""Counters and latencies of the requests of one gateway process. Source: docs/http-api.md, section 3."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram

LATENCY_BUCKETS = (10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000)
"""Upper bounds of the buckets of latencies, in milliseconds: 10 ms to 1 h."""
_LABELS = ("method", "path", "status")


@dataclass(frozen=True, slots=True)
class Requests:
    """Number of requests with one method, path template and status."""

    method: str
    path: str
    status: int
    count: int


class RequestMetrics:
    """Counts requests in a registry; the number of its label sets is bounded by routes, methods and statuses."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._count = Counter("lg_api_http_requests", "HTTP requests", _LABELS, registry=registry)
        self._latency = Histogram(
            "lg_api_http_requests_latency",
            "Time of HTTP requests to the end of their response, in milliseconds",
            _LABELS,
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def note(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one request; `path` is the template of its route."""
        labels = (method, path, status)
        found = self._children.get(labels)
        if found is None:
            found = self._children[labels] = self._count.labels(*labels), self._latency.labels(*labels)
        count, latency = found
        count.inc()
        latency.observe(seconds * 1000)

    def requests(self) -> Iterator[Requests]:
        """Yield the numbers of requests so far."""
        for metric in self._count.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    labels = sample.labels
                    yield Requests(labels["method"], labels["path"], int(labels["status"]), int(sample.value))
