"""`agentlog projection`: partitions without progress and quarantined aggregates, and the ways out."""

import asyncio
import json
from pathlib import Path

import rich_click as click

from agentlog_infra.console import Status, put, put_json, put_table, say
from agentlog_infra.process.processors_jobs import query_projection
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined

DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory of the stack to use.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def projection() -> None:
    """Show partitions without progress and quarantined aggregates; park a record's aggregate; retry."""


@projection.command("list")
@DATA_DIR
@AS_JSON
def show(data_dir: Path | None, as_json: bool) -> int:
    """Show partitions without progress and quarantined aggregates; the exit status is 3 if there are any."""
    status, printed = asyncio.run(query_projection(joined(Settings.load({"data_dir": data_dir})), "list"))
    found = json.loads(printed)
    if as_json:
        put_json(found)
        return status
    for number, why in found["stopped"].items():
        put(f"partition {number} is stopped: {why}")
    for number, why in found["stalled"].items():
        put(f"partition {number}: {why}")
    columns = ("model", "key", "partition", "commits", "attempts", "error")
    if found["quarantine"]:
        put_table(columns, [[str(one[name]) for name in columns] for one in found["quarantine"]])
    say(f"{sum(found['behind'].values())} records behind the log")
    if found["stopped"] or found["stalled"]:
        say("`agentlog projection stuck` names the records; `agentlog projection park PARTITION` passes over one")
    if status == Status.OK:
        say("no partition is stopped, and nothing is in quarantine")
    return status


@projection.command("stuck")
@DATA_DIR
@AS_JSON
def show_stuck(data_dir: Path | None, as_json: bool) -> int:
    """Name the record at which each partition without progress stands; the exit status is 3 if there are any."""
    status, printed = asyncio.run(query_projection(joined(Settings.load({"data_dir": data_dir})), "stuck"))
    found = json.loads(printed)
    if as_json:
        put_json(found)
        return status
    columns = ("topic", "partition", "offset", "key", "error")
    if found:
        put_table(columns, [[str(one[name]) for name in columns] for one in found])
    else:
        say("every partition makes progress")
    return status


@projection.command()
@DATA_DIR
@AS_JSON
@click.argument("partition", type=click.IntRange(min=0))
def park(data_dir: Path | None, as_json: bool, partition: int) -> int:
    """Quarantine the aggregate of the record at which PARTITION stands, whatever the record holds.

    The other aggregates of the partition go on. The records of this one wait, in order, until `retry`. The exit status
    is 5 if the partition stands at no record.
    """
    settings = joined(Settings.load({"data_dir": data_dir}))
    status, printed = asyncio.run(query_projection(settings, "park", str(partition)))
    if status == Status.OK:
        one = json.loads(printed)
        if as_json:
            put_json(one)
        else:
            put(f"parked {one['key']} from {one['topic']}-{one['partition']} offset {one['offset']} on: {one['error']}")
    return status


@projection.command()
@DATA_DIR
@AS_JSON
@click.option("--model", default="", help="Only this read model, or `ledger`.")
@click.option("--key", default="", help="Only this aggregate: the id of a thread, an assistant, ...")
def retry(data_dir: Path | None, as_json: bool, model: str, key: str) -> int:
    """Apply quarantined commits again, in order; the exit status is 3 if one fails again, 5 if there are none."""
    status, printed = asyncio.run(query_projection(joined(Settings.load({"data_dir": data_dir})), "retry", model, key))
    for line in printed.splitlines():
        if as_json:
            put(line)
        else:
            one = json.loads(line)
            outcome = f"failed again: {one['error']}" if one["error"] else f"applied {one['commits']} commits"
            put(f"{one['model']} {one['key']}: {outcome}")
    return status
