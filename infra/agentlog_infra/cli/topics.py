"""Decides `agentlog topics`: how the log's topics differ from what they must be, and making them so."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from agentlog_infra.console import Status, put_json, put_table, say
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined

if TYPE_CHECKING:
    from agentlog_infra.kafka.topic_settings import TopicChange


@click.group()
def topics() -> None:
    """Compare the log's topics with what they must be."""


@topics.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory whose stack is asked.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def plan(data_dir: Path | None, as_json: bool) -> int:
    """Show differences and change nothing; exit status 3 if there are any."""
    from agentlog_infra.kafka.topics import plan as differences

    found = asyncio.run(differences(joined(Settings.load({"data_dir": data_dir}))))
    _show(found, as_json=as_json)
    return Status.DIFFERENCE if found else Status.OK


@topics.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory whose stack is changed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def apply(data_dir: Path | None, as_json: bool) -> int:
    """Create what is missing and change what may be changed; partitions and replicas never are."""
    from agentlog_infra.kafka.topics import apply as change

    _show(asyncio.run(change(joined(Settings.load({"data_dir": data_dir})))), as_json=as_json)
    return Status.OK


def _show(changes: "list[TopicChange]", *, as_json: bool) -> None:
    if as_json:
        put_json([{"topic": c.topic, "setting": c.setting, "found": c.found, "needed": c.needed} for c in changes])
    elif changes:
        put_table(
            ("topic", "setting", "found", "needed"), [(c.topic, c.setting, c.found or "-", c.needed) for c in changes]
        )
    else:
        say("no difference")
