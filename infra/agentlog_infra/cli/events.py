"""`agentlog events`: the commits on the log with their facts and verdicts."""

import asyncio
from pathlib import Path

import rich_click as click

from agentlog_infra.console import CommandFailed, Status, put, put_json
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined


@click.command()
@click.option("--thread", "thread_id", help="Only this thread.")
@click.option("--follow", "-f", is_flag=True, help="Wait for new commits and show them; Ctrl-C ends it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per line, with the stored commit.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory of the stack to read.")
def events(thread_id: str | None, follow: bool, as_json: bool, data_dir: Path | None) -> int:
    """Show commits, in order within a thread: time, stream, version, facts, actor, verdict.

    A commit that was not accepted changed nothing; it stays on the log as evidence.
    """
    settings = joined(Settings.load({"data_dir": data_dir}))
    shown = asyncio.run(_show(settings, thread_id, follow=follow, as_json=as_json))
    if thread_id and not shown:
        raise CommandFailed(f"thread {thread_id} has nothing on the log", status=Status.NOT_FOUND)
    return Status.OK


async def _show(settings: Settings, thread_id: str | None, *, follow: bool, as_json: bool) -> int:
    from agentlog_infra.cli.event_reader import EventReader

    shown = 0
    async with EventReader(settings) as log:
        async for commit in log.read(thread_id=thread_id, follow=follow):
            shown += 1
            if as_json:
                put_json(commit.as_json())
            else:
                put(commit.as_line())
    return shown
