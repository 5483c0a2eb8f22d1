"""Metrics of a gateway: what they count, and what they say while dependencies are away."""

from collections.abc import Mapping
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.web_env import without_database

from agentlog_gateway.http.request_metrics import RequestMetrics, Requests
from agentlog_gateway.metrics.exposition import ServerCollector, ServerFigures, process_registry
from agentlog_projections.queries.health import ProjectionHealth
from agentlog_projections.queries.run_health import QueueFigures

QUEUE = QueueFigures(pending=3, running=2, longest_s=7.5, median_s=4.0, longest_first_s=1.0)
PROJECTION = ProjectionHealth(2, (), {1: "log diverged"}, {"checkpoints": 4}, {0: 5}, {}, {0: 10, 1: 20})
FIGURES = ServerFigures({"redis": True, "database": True}, {"agent": QUEUE}, 2, 10, 1, PROJECTION)


def samples(text: str) -> dict[str, float]:
    """Return the samples of a Prometheus text by name and labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name + _labels(sample.labels)] = sample.value
    return found


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{name}={text}" for name, text in sorted(labels.items())) + "}" if labels else ""


def collected(figures: ServerFigures) -> dict[str, float]:
    """Return the samples that figures of a server give."""
    families = ServerCollector(figures).collect()
    return {sample.name + _labels(sample.labels): sample.value for family in families for sample in family.samples}


async def test_requests_are_counted_by_route_and_status_with_their_latency() -> None:
    async with without_database() as (client, _):
        for path in ("/info", "/info", "/threads/no-uuid", "/threads/other"):
            await client.get(path)
        await client.request("PURGE", "/info")
        answer = await client.get("/metrics")
    found = samples(answer.text)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert found["lg_api_http_requests_total{method=GET,path=/info,status=200}"] == 2
    assert found["lg_api_http_requests_total{method=GET,path=/threads/{thread_id},status=422}"] == 2
    assert found["lg_api_http_requests_total{method=OTHER,path=/info,status=405}"] == 1
    assert found["lg_api_http_requests_latency_count{method=GET,path=/info,status=200}"] == 2
    assert found["lg_api_http_requests_latency_bucket{le=+Inf,method=GET,path=/info,status=200}"] == 2
    assert found["process_resident_memory_bytes"] > 0


async def test_what_a_dependency_that_is_away_would_tell_is_left_out_of_the_text() -> None:
    async with without_database() as (client, _):
        found = samples((await client.get("/metrics")).text)
        refused = await client.get("/metrics?format=json")
        unknown = await client.get("/metrics?format=xml")
    assert (found["agentlog_dependency_up{dependency=database}"], found["lg_api_workers_max"]) == (0, 0)
    assert not [name for name in found if name.startswith(("agentlog_queue", "lg_api_workers_active"))]
    assert (refused.status_code, unknown.status_code) == (503, 422)


def test_figures_of_the_server_are_shown_by_graph_and_partition() -> None:
    found = collected(FIGURES)
    assert found["agentlog_queue_depth{graph=agent,state=pending}"] == 3
    assert found["agentlog_queue_depth{graph=agent,state=running}"] == 2
    assert found["agentlog_queue_oldest_seconds{graph=agent}"] == 7.5
    workers = [found[f"lg_api_workers_{name}"] for name in ("max", "active", "available")]
    assert workers == [10, 2, 8]
    assert found["agentlog_recent_worker_deaths"] == 1
    assert found["agentlog_projection_lag_events{partition=0}"] == 5
    assert found["agentlog_projection_lag_events{partition=1}"] == 0
    assert found["agentlog_log_head_position{partition=0}"] == 15
    assert found["agentlog_projection_failed_partitions"] == 1
    assert found["agentlog_quarantined_aggregates{projection=checkpoints}"] == 4


def test_more_active_runs_than_jobs_leave_none_available() -> None:
    """A worker that has just died is no longer counted, its runs still are."""
    assert collected(replace(FIGURES, jobs=1))["lg_api_workers_available"] == 0
    assert "lg_api_workers_available" not in collected(replace(FIGURES, jobs=None))


def test_requests_of_one_route_are_counted_together_whatever_their_ids() -> None:
    counted, route = RequestMetrics(process_registry()), "/threads/{thread_id}"
    for _ in range(50):
        counted.note("GET", route, 200, 0.02)
    assert [*counted.requests()] == [Requests("GET", route, 200, 50)]
