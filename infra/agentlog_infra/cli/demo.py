"""`agentlog demo`: one complete example, on the server of the data directory or on its own."""

import asyncio
import sys
from importlib.resources import files
from pathlib import Path

import rich_click as click

from agentlog_facts.errors import Unavailable
from agentlog_infra import logs, timeouts
from agentlog_infra.console import say
from agentlog_infra.settings import Settings, origin_of
from agentlog_infra.stack.addresses import joined, running_on
from agentlog_infra.supervisor.dev_server import DevServer, dev_server, free_port, run_until_signal


@click.command()
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Folder for the data of the embedded servers [.agentlog]."
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the server that it starts [a free one].")
def demo(data_dir: Path | None, port: int | None) -> int:
    """Run one complete example through the official SDK: stream, interrupt, resume, history, facts on the log.

    If a server runs on the data directory, the demo uses it and leaves it running. Otherwise it starts a server with
    the example graphs, and stops it at the end.
    """
    settings = Settings.load({"data_dir": data_dir})
    if origin_of("log_level") == "default":
        settings = settings.model_copy(update={"log_level": "WARNING"})  # the demo prints its own messages
    logs.configure(settings.log_level, as_json=settings.log_json)
    url = _url_of_running(settings)
    if url:
        say(f"using the server that runs at {url}")
        return asyncio.run(_demo(joined(settings), url))
    config = Path(str(files("agentlog_infra") / "examples" / "langgraph.json"))
    own = settings.model_copy(update={"config": config, "port": port or free_port(settings.host)})
    return asyncio.run(_with_own_server(own))


def _url_of_running(settings: Settings) -> str | None:
    try:
        return running_on(settings.data_dir).url
    except Unavailable:
        return None


async def _with_own_server(settings: Settings) -> int:
    running: list[DevServer] = []

    async def once() -> int:
        say("starting the server with the example graphs")
        async with dev_server(settings, grace_secs=timeouts.DEV_GRACE_S) as here:
            running.append(here)
            return await _demo(here.settings, here.url)

    def kill() -> None:
        for here in running:
            here.supervisor.kill()

    return await run_until_signal(once(), kill)


async def _demo(settings: Settings, url: str) -> int:
    from agentlog_infra.cli.demo_script import run_demo
    from agentlog_infra.cli.event_reader import EventReader

    async with EventReader(settings) as events:
        return await run_demo(url, sys.stdout, events.lines_of_thread)
