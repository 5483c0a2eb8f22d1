"""Responses to requests that lost every race, and to retries that would be refused now."""

import pytest
from tests.gateway.race_env import THREAD, Beaten, two_gateways

from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.thread import ThreadCreated

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
    async with two_gateways(Beaten) as gateways:
        answer = await gateways.one.request(method, path, json=body)
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, None if status == 409 else "1")
    assert str(THREAD) in answer.json()["detail"]


async def test_a_request_that_had_its_effect_is_answered_as_the_first_time_where_it_would_be_refused_now() -> None:
    async with two_gateways() as gateways:
        await gateways.log.happen(ThreadCreated(THREAD, {}))
        first = await gateways.one.post(f"{PATH}/runs", json=RUN, headers={"Idempotency-Key": "k"})
        gateways.rows.graph_id = "gone"
        again = await gateways.other.post(f"{PATH}/runs", json=RUN, headers={"Idempotency-Key": "k"})
        new = await gateways.other.post(f"{PATH}/runs", json=RUN, headers={"Idempotency-Key": "l"})
    assert (first.status_code, again.status_code, new.status_code) == (200, 200, 404)
    assert again.json() == first.json()
    assert gateways.log.verdicts == {"accepted": 1}
