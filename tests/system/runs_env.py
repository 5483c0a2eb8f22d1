"""Runs that wait at gates, and helpers to read their status."""

from pathlib import Path
from uuid import uuid4

from tests.system.api import Api
from tests.system.cluster import Cluster
from tests.system.servers import RunningServer

from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load

UNKNOWN = "019ab000-0000-7000-8000-000000000001"


class Gate:
    """A file for which a step of the example graph waits."""

    def __init__(self, server: RunningServer | Cluster) -> None:
        self.name = f"gate-{uuid4().hex}"
        self._path: Path = server.gates / self.name

    def open(self) -> None:
        """Open the gate."""
        self._path.touch()

    def held(self, step: str = "two", **more: Json) -> JsonObject:
        """Return an input for `steps` that waits in this step."""
        return {"hold": {step: self.name}, "name": self.name, **more}

    def began(self, server: RunningServer | Cluster, step: str = "two") -> bool:
        """Return whether the step has started to wait."""
        return bool(self.runs_in(server, step))

    def runs_in(self, server: RunningServer | Cluster, step: str) -> list[str]:
        """Return the runs with this input that have started the step, in order."""
        mine = [line for line in server.steps() if line["name"] == self.name]
        return [line["run_id"] for line in mine if (line["step"], line["edge"]) == (step, "start")]


async def refused(
    api: Api, method: str, path: str, body: Json = None, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """Send a request that is refused; return status and detail."""
    status, content = await api.raw(method, path, None if body is None else dump(body), headers)
    assert status >= 400, content
    detail = as_object(load(content))["detail"]
    assert isinstance(detail, str)
    return status, detail


async def run_status(api: Api, thread_id: str, run_id: str) -> str:
    """Return the status of a run."""
    return str((await api.get(f"/threads/{thread_id}/runs/{run_id}"))["status"])


async def thread_status(api: Api, thread_id: str) -> str:
    """Return the status of a thread."""
    return str((await api.get(f"/threads/{thread_id}"))["status"])


def done_of(values: Json) -> Json:
    """Return the completed steps in a state of `steps`."""
    return as_object(values).get("done")
