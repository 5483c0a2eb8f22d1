"""Prometheus families of the figures of the whole server, and the registry of one process."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeAlias

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric

from agentlog_facts.version import VERSION
from agentlog_projections.queries.health import ProjectionHealth
from agentlog_projections.queries.run_health import QueueFigures

_Values: TypeAlias = dict[tuple[str, ...], float]
"""Value of each set of labels."""


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """Figures of the whole server; None, or False in `up`, if the dependency that knows them does not answer.

    `queue` has the runs of each graph. `jobs` is how many runs all workers may execute at once.
    """

    up: Mapping[str, bool]
    queue: Mapping[str, QueueFigures] | None
    running: int | None
    jobs: int | None
    deaths: int | None
    projection: ProjectionHealth | None


class ServerCollector:
    """Collector of figures that were read for one answer."""

    def __init__(self, figures: ServerFigures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Yield the families that are known."""
        yield _gauge("agentlog_build_info", "Versions of this server", ("version", "langgraph"), _VERSIONS)
        up: _Values = {(name,): float(answers) for name, answers in self._figures.up.items()}
        yield _gauge("agentlog_dependency_up", "1 if the dependency answers", ("dependency",), up)
        if self._figures.queue is not None:
            yield from _queue(self._figures.queue)
        yield from _workers(self._figures)
        if self._figures.projection is not None:
            yield from _projection(self._figures.projection)


def process_registry() -> CollectorRegistry:
    """Return a registry with the figures of this process: CPU, memory, descriptors, Python."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


_VERSIONS: _Values = {(VERSION, version("langgraph")): 1.0}


def _gauge(name: str, text: str, labels: tuple[str, ...], values: _Values) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label, value in values.items():
        family.add_metric(label, value)
    return family


def _queue(queue: Mapping[str, QueueFigures]) -> Iterator[Metric]:
    depth: _Values = {(graph, "pending"): one.pending for graph, one in queue.items()}
    depth |= {(graph, "running"): one.running for graph, one in queue.items()}
    yield _gauge("agentlog_queue_depth", "Runs that have not ended", ("graph", "state"), depth)
    oldest: _Values = {(graph,): one.longest_s or 0.0 for graph, one in queue.items()}
    yield _gauge("agentlog_queue_oldest_seconds", "Longest waiting time of a pending run", ("graph",), oldest)


def _workers(figures: ServerFigures) -> Iterator[Metric]:
    found = {"max": figures.jobs, "active": figures.running, "available": available(figures)}
    for name, value in found.items():
        if value is not None:
            yield _gauge(f"lg_api_workers_{name}", f"Jobs of all workers: {name}", (), {(): value})
    if figures.deaths is not None:
        text = "Workers that died in the last ten minutes"
        yield _gauge("agentlog_recent_worker_deaths", text, (), {(): figures.deaths})


def available(figures: ServerFigures) -> int | None:
    """Return how many more runs the workers could execute now, None if that is unknown."""
    if figures.jobs is None or figures.running is None:
        return None
    return max(0, figures.jobs - figures.running)


def _projection(health: ProjectionHealth) -> Iterator[Metric]:
    positions = health.positions
    lag: _Values = {(str(number),): health.behind.get(number, 0) for number in positions}
    yield _gauge("agentlog_projection_lag_events", "Records that are not folded yet", ("partition",), lag)
    at: _Values = {(str(number),): place for number, place in positions.items()}
    yield _gauge("agentlog_projection_position", "Offset of the next record to fold", ("partition",), at)
    ends: _Values = {label: place + lag[label] for label, place in at.items()}
    yield _gauge("agentlog_log_head_position", "End of the log", ("partition",), ends)
    failed: _Values = {(): float(len(health.without_progress))}
    yield _gauge("agentlog_projection_failed_partitions", "Partitions that need an operator", (), failed)
    parked: _Values = {(model,): count for model, count in health.parked.items()}
    yield _gauge("agentlog_quarantined_aggregates", "Aggregates in quarantine", ("projection",), parked)
