"""System tests of the health endpoints."""

from tests.system.api import Api
from tests.system.servers import RunningServer


async def test_health_asks_every_dependency_when_told_to(server: RunningServer) -> None:
    api = Api(server.url)
    assert await api.get("/ok") == {"ok": True, "services": {}}
    services = {"database": "ok", "redis": "ok", "log": "ok"}
    assert await api.get("/ok?check_db=1") == {"ok": True, "services": services}
