"""What a client is told whose request lost every race."""

import pytest
from tests.gateway.race_world import THREAD, Beaten, two_gateways

from agentlog_facts.json_value import Json, JsonObject

PATH = f"/threads/{THREAD}"
RUN: JsonObject = {"assistant_id": "steps", "input": {}}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", f"{PATH}/state", {"values": {}}, 409),
        ("POST", f"{PATH}/runs", {**RUN, "multitask_strategy": "reject"}, 409),
        ("POST", f"{PATH}/runs", {**RUN, "multitask_strategy": "interrupt"}, 503),
        ("POST", f"{PATH}/runs", {**RUN, "command": {"resume": "yes"}}, 503),
        ("POST", f"{PATH}/runs/{THREAD}/cancel", None, 503),
        ("DELETE", f"{PATH}/runs/{THREAD}", None, 503),
        ("DELETE", PATH, None, 503),
    ],
)
async def test_who_lost_every_race_is_told_a_conflict_where_the_contract_has_one_and_else_to_come_again(
    method: str, path: str, body: Json, status: int
) -> None:
    async with two_gateways(Beaten) as told:
        answer = await told.one.request(method, path, json=body)
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, None if status == 409 else "1")
    assert str(THREAD) in answer.json()["detail"]
