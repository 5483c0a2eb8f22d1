"""`agentlog topics`: differences between the topics and the required settings, and applying these."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from agentlog_infra.console import Status, put, put_json, put_table, say
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined

if TYPE_CHECKING:
    from agentlog_infra.kafka.topic_settings import TopicChange


@click.group()
def topics() -> None:
    """Compare the topics of the log with the required settings."""


@topics.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory of the stack to check.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; the same as --format json.")
@click.option(
    "--format", "form", type=click.Choice(("table", "json", "strimzi")), default="table", help="Form of the output."
)
def plan(data_dir: Path | None, as_json: bool, form: str) -> int:
    """Show differences and change nothing; the exit status is 3 if there are any.

    `--format strimzi` asks no server: it prints KafkaTopic resources with all required settings for the Strimzi
    operator. Run `agentlog topics apply` once after it has created the topics.
    """
    if form == "strimzi":
        from agentlog_infra.kafka.topic_settings import strimzi_manifests

        put(strimzi_manifests(Settings.load({"data_dir": data_dir})))
        return Status.OK
    from agentlog_infra.kafka.topics import plan as differences

    found = asyncio.run(differences(joined(Settings.load({"data_dir": data_dir}))))
    _show(found, as_json=as_json or form == "json")
    return Status.DIFFERENCE if found else Status.OK


@topics.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory of the stack to change.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def apply(data_dir: Path | None, as_json: bool) -> int:
    """Create missing topics and apply settings; never change partitions or replicas."""
    from agentlog_infra.kafka.topics import apply as change

    _show(asyncio.run(change(joined(Settings.load({"data_dir": data_dir})))), as_json=as_json)
    return Status.OK


def _show(changes: "list[TopicChange]", *, as_json: bool) -> None:
    if as_json:
        put_json(
            [
                {"topic": c.topic, "setting": c.setting, "found": c.found, "needed": c.needed, "hidden": c.hidden}
                for c in changes
            ]
        )
    elif changes:
        put_table(("topic", "setting", "found", "needed"), [(c.topic, c.setting, c.shown, c.needed) for c in changes])
    else:
        say("no difference")
