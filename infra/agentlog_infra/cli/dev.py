"""`agentlog dev`: the complete server on one machine and one port, until it is interrupted."""

import asyncio
import json
import time
from pathlib import Path

import rich_click as click

from agentlog_facts.version import VERSION
from agentlog_infra import logs, timeouts
from agentlog_infra.console import Status, put, say
from agentlog_infra.langgraph.loading.config import graph_ids
from agentlog_infra.process.wait import first_to_end
from agentlog_infra.project_env import project_environment
from agentlog_infra.settings import Settings, origin_of
from agentlog_infra.supervisor.dev_server import DevServer, dev_server, run_until_signal

_STUDIO = "https://smith.langchain.com/studio/?baseUrl="


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The langgraph.json that names the graphs.")
@click.option("--host", help="Address to listen on [127.0.0.1].")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on [2024].")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Folder for the data of the embedded servers [.agentlog]."
)
@click.option("--no-reload", is_flag=True, help="Do not restart workers and gateway when a graph's files change.")
@click.option("--n-jobs-per-worker", type=click.IntRange(1), help="Number of runs that a worker executes at once [10].")
def dev(
    config: Path | None,
    host: str | None,
    port: int | None,
    data_dir: Path | None,
    no_reload: bool,
    n_jobs_per_worker: int | None,
) -> int:
    """Run the complete server on this machine: log, PostgreSQL, Valkey and all roles.

    Ctrl-C stops it in order: runs get 5 s to finish, or BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS if that is set, and then a
    fifth of that time (1 to 10 s) to stop; code that blocks is left behind, and its run continues at the next start.
    A second Ctrl-C stops it at once. Neither loses anything that was acknowledged.
    """
    began = time.monotonic()
    flags = {"config": config, "host": host, "port": port, "data_dir": data_dir, "jobs_per_worker": n_jobs_per_worker}
    settings = Settings.load(flags)
    logs.configure(settings.log_level, as_json=settings.log_json)
    return asyncio.run(_dev(settings, reload=not no_reload, began=began))


def grace_of(settings: Settings) -> float:
    """Return how long a development server lets runs finish: short, unless the setting was given."""
    given = origin_of("shutdown_grace_secs", project=project_environment(settings.config)) != "default"
    return settings.shutdown_grace_secs if given else timeouts.DEV_GRACE_S


async def _dev(settings: Settings, *, reload: bool, began: float) -> int:
    running: list[DevServer] = []

    async def stay_up() -> int:
        async with dev_server(settings, grace_secs=grace_of(settings)) as here:
            running.append(here)
            _announce(here, time.monotonic() - began)
            changes = [here.reload_on_change()] if reload else []
            await first_to_end(here.wait_failed(), *changes)
        return Status.OK

    def kill() -> None:
        say("stopping at once")
        for here in running:
            here.supervisor.kill()

    return await run_until_signal(stay_up(), kill)


def _announce(here: DevServer, took_secs: float) -> None:
    graphs = graph_ids(here.settings.config)
    body = {"assistant_id": graphs[0], "input": {"messages": [{"role": "user", "content": "hello"}]}}
    put(
        f"""\
agentlog {VERSION} is ready after {took_secs:.1f} s
  API      {here.url}
  docs     {here.url}/docs
  health   {here.url}/ok
  Studio   {_STUDIO}{here.url}
  graphs   {", ".join(graphs)}
  data     {here.stack.data_dir.root}
The first request:
  curl -s {here.url}/runs/wait -H 'content-type: application/json' \\
    -d '{json.dumps(body)}'
Ctrl-C stops it."""
    )
