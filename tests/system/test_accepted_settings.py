"""System test of a Kafka that hides settings: each change of their acceptance is on the log, once."""

import asyncio
from pathlib import Path

import pytest
from tests.system.api import Api
from tests.system.checker.judgement import judged_well
from tests.system.servers import RunningServer, running_server, wait_until

from agentlog_facts.json_value import Json

ELECTION, STAMP = "unclean.leader.election.enable", "message.timestamp.type"
HIDING = f"""
from agentlog_infra.kafka import topics

shown = topics._configs

async def hiding(client, names):
    found = await shown(client, names)
    hidden = ("{ELECTION}", "{STAMP}")
    return {{topic: {{name: one for name, one in all_.items() if name not in hidden}} for topic, all_ in found.items()}}

topics._configs = hiding
"""
"""Imported before every other module of a process, so that it sees a Kafka that hides two settings."""
ALL = [
    f"agentlog.blobs {ELECTION}=false",
    f"agentlog.events {STAMP}=LogAppendTime",
    f"agentlog.events {ELECTION}=false",
]
SOON_S = 30.0


def hiding(folder: Path) -> dict[str, str]:
    (folder / "hiding").mkdir()
    (folder / "hiding" / "sitecustomize.py").write_text(HIDING)
    return {"PYTHONPATH": str(folder / "hiding"), "AGENTLOG_KAFKA_ACCEPT": f"{ELECTION},{STAMP}"}


async def restarted(server: RunningServer, environment: dict[str, str]) -> None:
    """Start the server with other variables; let it execute a run, so that its start is complete."""
    assert await asyncio.to_thread(server.stop) == 0
    server.environment = environment
    await asyncio.to_thread(server.start)
    api = Api(server.url)
    thread_id = await api.thread()
    await api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "steps", "input": {}})


def until_recorded(server: RunningServer, times: int) -> None:
    wait_until(lambda: server.log().count("accepted_settings.recorded") == times, SOON_S, f"{times} are recorded")


@pytest.mark.timeout(240)
async def test_each_change_of_the_accepted_settings_is_a_fact_on_the_log() -> None:
    with running_server() as server:
        environment = hiding(server.folder)
        for changes in (1, 1, 2):  # starts with two hidden settings, again with them, and with none
            await restarted(server, environment if changes == 1 else {})
            await asyncio.to_thread(until_recorded, server, changes)
        judged, _ = await judged_well(server.kafka, server.postgres)
    found: list[tuple[str, Json]] = [
        (one.verdict, data["settings"]) for one in judged for kind, data in one.facts if kind == "KafkaSettingsAccepted"
    ]
    assert found == [("accepted", sorted(ALL)), ("accepted", [])]
