"""System test of a graph that is removed from `langgraph.json`: nobody can take its runs, and they go on later."""

import json
import subprocess
import sys

from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.checker.judgement import judged_well
from tests.system.runs_env import Gate, done_of, run_status
from tests.system.servers import RunningServer, clean_environment, running_server

from agentlog_facts.json_value import as_object

ALL_STEPS = ["one", "two", "three", "four", "five"]
STEPS = {"steps": "agentlog_infra.examples.example_steps:graph"}
TRIVIAL = {"trivial": "agentlog_infra.examples.example_trivial:graph"}


def restart_with(server: RunningServer, graphs: dict[str, str]) -> None:
    assert server.stop() == 0
    server.config = server.folder / "langgraph.json"
    server.config.write_text(json.dumps({"dependencies": ["."], "graphs": graphs}))
    server.start()


def doctor(server: RunningServer) -> dict[str, str]:
    words = [sys.executable, "-m", "agentlog_infra.cli.main", "doctor", "--json", "--config", str(server.config)]
    words += ["--data-dir", str(server.folder / "data")]
    done = subprocess.run(words, env=clean_environment({}), capture_output=True, text=True, timeout=60, check=False)
    return {one["name"]: f"{one['state']}: {one['found']}" for one in json.loads(done.stdout)["findings"]}


async def test_a_run_whose_graph_was_removed_says_so_and_goes_on_when_the_graph_is_back() -> None:
    with running_server({"BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "0.1"}) as server:
        api, gate = Api(server.url), Gate(server)
        thread_id = await api.thread()
        run_id = await api.start_run(thread_id, "steps", gate.held())
        await until(lambda: gate.began(server))
        restart_with(server, TRIVIAL)

        run = await api.get(f"/threads/{thread_id}/runs/{run_id}")
        assert run["status"] == "pending"
        assert "graph steps is not in langgraph.json: nobody can take this run" in str(
            as_object(run["blocked"])["reason"]
        )
        ready = await api.get("/ready")
        [(graph_id, unserved)] = as_object(ready["unserved"]).items()
        assert (ready["ready"], graph_id, as_object(unserved)["runs"]) == (True, "steps", 1)
        assert doctor(server)["runs"].startswith("warning: nobody can take: 1 of graph steps, the oldest for")

        gate.open()
        restart_with(server, STEPS)
        assert done_of(await api.join(thread_id, run_id)) == ALL_STEPS
        assert await run_status(api, thread_id, run_id) == "success"
        assert (await api.get("/ready"))["unserved"] == {}
        assert doctor(server)["runs"] == "ok: 0 pending"
        await judged_well(server.kafka, server.postgres)
