"""System tests of nodes that end their process: their runs are named and end, all others succeed, the server stays."""

import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.checker.judgement import judged_well
from tests.system.runs_env import Gate, done_of, run_status
from tests.system.servers import RunningServer, running_server

from agentlog_facts.json_value import JsonObject, as_object

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
ALL_STEPS = ["one", "two", "three", "four", "five"]
ENDED_S = 200.0
KILLS = ["exit", "exit_0", "exit_2", "exit_75", "abort", "segfault", "kill", "exit_async", "kill_async"]
"""Ways that end the process at once."""
ERRORS = ["sys_exit", "sys_exit_async"]
"""Ways that are errors of the run."""
HARMLESS = ["fork", "fork_async", "stop_loop"]


@dataclass
class DyingEnv:
    """A server, and the start and end of its runs."""

    server: RunningServer
    api: Api

    async def run(self, how: str, graph: str = "dying", more: JsonObject | None = None) -> tuple[str, str]:
        """Start a run that dies in this way, on a new thread."""
        thread_id = await self.api.thread()
        return thread_id, await self.api.start_run(thread_id, graph, {"how": how}, more)

    async def end_of(self, thread_id: str, run_id: str) -> tuple[str, str]:
        """Wait for the end of a run; return its status, and the message of its thread's error."""

        async def ended() -> bool:
            return await run_status(self.api, thread_id, run_id) not in ("pending", "running")

        await until(ended, within_secs=ENDED_S)
        error = (await self.api.get(f"/threads/{thread_id}"))["error"]
        message = str(as_object(error).get("message")) if isinstance(error, dict) else ""
        return await run_status(self.api, thread_id, run_id), message

    async def deaths(self) -> Counter[tuple[object, object]]:
        """Check the log, and return the number of releases by reason and by whether they count."""
        judged, _ = await judged_well(self.server.kafka, self.server.postgres)
        facts = [
            data for one in judged if one.verdict == "accepted" for kind, data in one.facts if kind == "RunReleased"
        ]
        return Counter((data["reason"], data.get("counts")) for data in facts)


@asynccontextmanager
async def env(**more: str) -> AsyncGenerator[DyingEnv]:
    """Yield an own server."""
    with running_server(more, GRAPHS) as server:
        try:
            yield DyingEnv(server, Api(server.url))
        except BaseException:
            sys.stderr.write(server.log()[-20_000:])  # shown with the failure
            raise


@pytest.mark.timeout(400)
async def test_runs_that_end_their_process_are_named_and_cost_no_other_run() -> None:
    async with env() as here:
        gates = [Gate(here.server) for _ in range(3)]
        beside = [
            (thread, await here.api.start_run(thread, "steps", gate.held()))
            for gate in gates
            for thread in [await here.api.thread()]
        ]
        await until(lambda: all(gate.began(here.server) for gate in gates))
        gateway = here.server.pids("agentlog_gateway")
        assert (await here.api.get("/ready"))["workers"] == {"deaths": 0, "suspects": 0}
        dying = {how: await here.run(how) for how in (*KILLS, *ERRORS, *HARMLESS)}
        ends = {how: await here.end_of(*ids) for how, ids in dying.items()}
        for how in KILLS:
            assert ends[how][0] == "error", ends
            node = "on_the_loop" if how.endswith("_async") else "in_a_thread"
            assert f"died twice while it executed node {node} of graph dying" in ends[how][1], ends
        for how in ERRORS:
            assert ends[how] == ("error", "the code of the graph raised SystemExit(3)"), ends
        for how in HARMLESS:
            assert ends[how] == ("success", ""), ends
        ready = await here.api.get("/ready")
        workers = as_object(ready["workers"])
        assert (ready["ready"], workers["suspects"]) == (True, len(gates)), ready
        assert int(str(workers["deaths"])) > 2 * len(KILLS), ready
        for gate in gates:
            gate.open()
        for thread_id, run_id in beside:
            assert done_of(await here.api.join(thread_id, run_id)) == ALL_STEPS
            assert await run_status(here.api, thread_id, run_id) == "success"
        assert here.server.pids("agentlog_gateway") == gateway
        deaths = await here.deaths()
        assert deaths["lost", True] == 2 * len(KILLS), deaths
