"""System tests of the health endpoints and of metrics."""

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families
from tests.system.api import Api
from tests.system.servers import RunningServer

from agentlog_facts.json_value import as_object


async def test_health_asks_every_dependency_when_told_to(server: RunningServer) -> None:
    api = Api(server.url)
    assert await api.get("/ok") == {"ok": True, "services": {}}
    services = {"database": "ok", "redis": "ok", "log": "ok"}
    assert await api.get("/ok?check_db=1") == {"ok": True, "services": services}


async def test_metrics_count_workers_runs_and_requests(server: RunningServer) -> None:
    api = Api(server.url)
    await api.get("/info")
    found = as_object(await api.get("/metrics?format=json"))
    assert found["queue"] == {**as_object(found["queue"]), "n_pending": 0}
    jobs = as_object(found["workers"])
    assert jobs["max"] == int(str(jobs["active"])) + int(str(jobs["available"])) > 0
    counted = as_object(found["api"])["http_requests_total"]
    assert isinstance(counted, list)
    assert any(as_object(one)["path"] == "/info" for one in counted)
    async with ClientSession() as session, session.get(f"{server.url}/metrics") as answer:
        text = await answer.text()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"agentlog_projection_lag_events", "agentlog_build_info", "process_cpu_seconds"} <= names
    assert 'agentlog_dependency_up{dependency="redis"} 1.0' in text
