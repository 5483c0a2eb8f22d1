"""Many clients at once, through two gateways on one log: one key is one run, one thread has one run, nothing is lost.

What a client may be told follows from the log, so each test reads it again with the independent checker.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
from tests.stack_fixtures import until
from tests.system.api import TIMEOUT, Api
from tests.system.checker.fold import Judged, judge
from tests.system.checker.invariants import check
from tests.system.checker.records import read_topic
from tests.system.gateways import another_gateway
from tests.system.runs_world import Gate, thread_status
from tests.system.servers import RunningServer, running_server

from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
WRITERS = 32
SAME_KEY = 100


@dataclass
class Answer:
    """What a request was told; `request_id` finds what it left on the log."""

    status: int
    body: Json
    request_id: str
    token: tuple[int, int] = (0, -1)
    detail: str = ""


@dataclass
class Storm:
    """Requests to both gateways in turn."""

    server: RunningServer
    urls: list[str]
    session: aiohttp.ClientSession
    answers: list[Answer] = field(default_factory=list[Answer])

    def __post_init__(self) -> None:
        self._next = cycle(self.urls)
        self.api = Api(self.urls[0])

    async def send(self, method: str, path: str, body: Json, key: str = "") -> Answer:
        """Send a request to the next gateway."""
        request_id = uuid4().hex
        headers = {"X-Request-Id": request_id, **({"Idempotency-Key": key} if key else {})}
        async with self.session.request(method, next(self._next) + path, data=dump(body), headers=headers) as got:
            content = load(await got.read())
            answer = Answer(got.status, content, request_id)
            if got.status < 300:
                _, partition, offset = map(int, got.headers["X-Consistency-Token"].split(":"))
                answer.token = partition, offset
            else:
                answer.detail = str(as_object(content)["detail"])
        self.answers.append(answer)
        return answer

    async def log(self, *thread_ids: str) -> list[Judged]:
        """Return the judged commits of threads, after the checker found nothing wrong with the whole log."""
        judged = judge(await read_topic(self.server.kafka, "agentlog.events"))
        assert check(judged).violations == []
        return [one for one in judged if one.record.key in thread_ids]


@pytest.fixture(scope="module")
def both() -> Generator[tuple[RunningServer, list[str]]]:
    """Run a server with a second gateway."""
    with running_server(config=GRAPHS) as server, another_gateway(server) as second:
        yield server, [server.url, second]


@pytest.fixture
async def storm(both: tuple[RunningServer, list[str]]) -> AsyncGenerator[Storm]:
    """Speak to both gateways."""
    async with _storm(*both) as found:
        yield found


@asynccontextmanager
async def _storm(server: RunningServer, urls: list[str]) -> AsyncGenerator[Storm]:
    async with aiohttp.ClientSession(timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Storm(server, urls, session)


def verdicts(judged: list[Judged], request_id: str) -> Counter[str]:
    """Count the verdicts over what a request left on the streams of its thread."""
    mine = [one for one in judged if as_object(one.record.value.get("request") or {}).get("id") == request_id]
    return Counter(one.verdict for one in mine if not one.stream.startswith("refusals-"))


def active_runs(judged: list[Judged]) -> list[set[str]]:
    """Return which runs were in, after each accepted commit."""
    now: set[str] = set()
    found: list[set[str]] = []
    for one in judged:
        for kind, data in one.facts if one.verdict == "accepted" else ():
            if kind == "RunCreated":
                now = now | {str(data["run_id"])}
            elif kind in ("RunFinished", "RunDeleted"):
                now = now - {str(data["run_id"])}
        found.append(now)
    return found


async def test_a_hundred_posts_with_one_key_are_one_run(storm: Storm) -> None:
    thread_id, key = await storm.api.thread(), uuid4().hex
    body: JsonObject = {"assistant_id": "steps", "input": {"name": key}}
    path = f"/threads/{thread_id}/runs"
    answers = await asyncio.gather(*(storm.send("POST", path, body, key) for _ in range(SAME_KEY)))
    assert {answer.status for answer in answers} == {200}
    run = as_object(answers[0].body)
    assert [answer.body for answer in answers] == [run] * SAME_KEY
    other = await storm.send("POST", path, {**body, "input": {"name": "another"}}, key)
    assert (other.status, "Idempotency-Key" in other.detail) == (422, True)
    await storm.api.join(thread_id, str(run["run_id"]))
    created = [one for one in await storm.log(thread_id) if any(kind == "RunCreated" for kind, _ in one.facts)]
    assert Counter(one.verdict for one in created)["accepted"] == 1
    starts = [line["run_id"] for line in storm.server.steps() if (line["name"], line["step"]) == (key, "one")]
    assert set(starts) == {str(run["run_id"])}


async def test_a_keyed_request_that_lost_a_race_succeeds_when_it_is_sent_again(storm: Storm) -> None:
    thread_id, gate = await storm.api.thread(), Gate(storm.server)
    path = f"/threads/{thread_id}/runs"
    bodies: list[JsonObject] = [
        {"assistant_id": "steps", "input": gate.held(), "metadata": {"n": n}, "multitask_strategy": "reject"}
        for n in range(8)
    ]
    keys = [uuid4().hex for _ in bodies]
    first = await asyncio.gather(*(storm.send("POST", path, body, key) for body, key in zip(bodies, keys, strict=True)))
    assert sorted(answer.status for answer in first) == [200] + [409] * 7
    gate.open()
    for body, key, told in zip(bodies, keys, first, strict=True):
        await until(lambda: _idle(storm.api, thread_id))
        again = await storm.send("POST", path, body, key)
        assert again.status == 200, again.detail
        assert told.status == 409 or again.body == told.body
        await storm.api.join(thread_id, str(as_object(again.body)["run_id"]))
    judged = await storm.log(thread_id)
    assert max(map(len, active_runs(judged))) == 1
    lost = [verdicts(judged, answer.request_id)["version_conflict"] for answer in first if answer.status == 409]
    assert sum(lost) > 0, "nobody lost a race on the log"


async def _idle(api: Api, thread_id: str) -> bool:
    return await thread_status(api, thread_id) == "idle"


async def test_no_key_is_lost_when_many_patch_one_threads_metadata(storm: Storm, full: bool) -> None:
    thread_id, rounds = await storm.api.thread(), 50 if full else 5

    async def write(writer: int) -> None:
        for number in range(rounds):
            body: JsonObject = {"metadata": {f"{writer}-{number}": number}}
            answer = await storm.send("PATCH", f"/threads/{thread_id}", body)
            assert answer.status == 200, answer.detail

    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    metadata = as_object((await storm.api.get(f"/threads/{thread_id}"))["metadata"])
    assert metadata == {f"{writer}-{number}": number for writer in range(WRITERS) for number in range(rounds)}
    patches = [one for one in await storm.log(thread_id) if one.stream == f"meta-{thread_id}"]
    assert Counter(one.verdict for one in patches) == {"accepted": WRITERS * rounds}


async def test_each_answer_to_racing_state_updates_is_what_the_log_says(storm: Storm, full: bool) -> None:
    thread_id, rounds = await storm.api.thread(), 20 if full else 2
    await storm.api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "steps", "input": {}})
    told: dict[str, tuple[str, Answer, int]] = {}

    async def write(writer: int) -> None:
        seen = -1
        for number in range(rounds):
            name = f"{writer}-{number}"
            body: JsonObject = {"values": {"done": [name]}, "as_node": "five"}
            answer = await storm.send("POST", f"/threads/{thread_id}/state", body)
            told[answer.request_id] = name, answer, seen
            seen = max(seen, answer.token[1])

    async def disturb() -> None:
        for _ in range(rounds):
            body: JsonObject = {"assistant_id": "steps", "input": {"sleep_ms": 20}}
            await storm.api.call("POST", f"/threads/{thread_id}/runs/wait", body)

    await asyncio.gather(disturb(), *(write(writer) for writer in range(WRITERS)))
    judged = await storm.log(thread_id)
    done = as_object((await storm.api.get(f"/threads/{thread_id}/state"))["values"])["done"]
    assert isinstance(done, list)
    by_hand = [name for name in done if "-" in str(name)]
    accepted: list[str] = []
    for request_id, (name, answer, seen) in told.items():
        assert answer.status in (200, 409), answer.detail
        left = verdicts(judged, request_id)
        assert left["accepted"] == (1 if answer.status == 200 else 0), f"{name} was told {answer.status}: {left}"
        if answer.status == 200:
            accepted.append(name)
        else:
            assert _justified(judged, left, seen), f"{name} was told {answer.detail!r} and left {left}"
    assert sorted(map(str, by_hand)) == sorted(accepted)
    statuses = Counter(answer.status for _, answer, _ in told.values())
    voids = sum(verdicts(judged, request_id).total() for request_id in told) - statuses[200]
    assert voids > 0, "no race was lost on the log"
    order = [one for one in judged if one.verdict == "accepted" and _name_of(told, one) is not None]
    assert [_name_of(told, one) for one in order] == by_hand, "the state holds them in the order of the log"


def _name_of(told: dict[str, tuple[str, Answer, int]], one: Judged) -> str | None:
    request = as_object(one.record.value.get("request") or {}).get("id")
    found = told.get(str(request))
    return None if found is None or one.stream.startswith("refusals-") else found[0]


def _justified(judged: list[Judged], left: Counter[str], seen: int) -> bool:
    """A 409 is right after eight lost races, or where a run was in at some moment after what the writer had seen."""
    later = [runs for one, runs in zip(judged, active_runs(judged), strict=True) if one.record.offset >= seen]
    return left["version_conflict"] >= 8 or left["view_locked"] > 0 or any(later)


async def test_of_those_that_reject_never_two_are_in_on_two_gateways(storm: Storm, full: bool) -> None:
    thread_id, rounds = await storm.api.thread(), 200 if full else 15
    body: JsonObject = {"assistant_id": "steps", "input": {}, "multitask_strategy": "reject"}
    statuses: Counter[int] = Counter()
    for _ in range(rounds):
        answers = await asyncio.gather(*(storm.send("POST", f"/threads/{thread_id}/runs", body) for _ in range(4)))
        statuses.update(answer.status for answer in answers)
        assert {answer.status for answer in answers} <= {200, 409}
        assert any(answer.status == 200 for answer in answers)
        await until(lambda: _idle(storm.api, thread_id))
    judged = await storm.log(thread_id)
    assert max(map(len, active_runs(judged))) == 1
    voids = Counter(one.verdict for one in judged)
    assert voids["version_conflict"] > 0, "the gateways never raced"
    created = [one for one in judged if one.verdict == "accepted" and one.facts[0][0] == "RunCreated"]
    assert len(created) == statuses[200]


@pytest.mark.parametrize("strategy", ["enqueue", "reject"])
async def test_of_two_answers_to_one_interrupt_one_counts_and_the_other_is_refused(
    storm: Storm, full: bool, strategy: str
) -> None:
    refused: list[tuple[str, str]] = []
    for _ in range(30 if full else 4):
        thread_id, gate = await storm.api.thread(), Gate(storm.server)
        path = f"/threads/{thread_id}/runs"
        asked: JsonObject = {"assistant_id": "asking", "input": {"gate": gate.name, "name": gate.name}}
        await storm.api.call("POST", f"{path}/wait", asked)
        both = [storm.send("POST", path, _resume(word, strategy)) for word in ("yes", "no")]
        answers = await asyncio.gather(*both)
        assert sorted(answer.status for answer in answers) == [200, 409]
        won, lost = sorted(answers, key=lambda answer: answer.status)
        run_id = str(as_object(won.body)["run_id"])
        assert run_id in lost.detail if strategy == "enqueue" else "already running" in lost.detail
        gate.open()
        values = await storm.api.join(thread_id, run_id)
        assert values["answers"] == [f"first {('yes', 'no')[answers.index(won)]}"]
        assert await thread_status(storm.api, thread_id) == "interrupted"
        final = as_object(await storm.api.call("POST", f"{path}/wait", _resume("maybe", strategy)))
        assert final["answers"] == [*as_list(values["answers"]), "second maybe"]
        refused.append((thread_id, lost.request_id))
    judged = await storm.log(*(thread_id for thread_id, _ in refused))
    assert all(verdicts(judged, request_id)["accepted"] == 0 for _, request_id in refused)


async def test_an_answer_to_the_next_question_may_come_before_the_run_that_asked_it_has_ended(storm: Storm) -> None:
    thread_id = await storm.api.thread()
    path = f"/threads/{thread_id}/runs"
    await storm.api.call("POST", f"{path}/wait", {"assistant_id": "asking", "input": {"name": thread_id}})
    first = await storm.send("POST", path, _resume("yes", "enqueue"))

    async def answered() -> bool:
        second = await storm.send("POST", path, _resume("also", "enqueue"))
        assert second.status in (200, 409)
        return second.status == 200

    assert first.status == 200
    await until(answered)
    await until(lambda: _idle(storm.api, thread_id))
    state = as_object((await storm.api.get(f"/threads/{thread_id}/state"))["values"])
    assert state["answers"] == ["first yes", "second also"]


def as_list(value: Json) -> list[Json]:
    """Return a list."""
    assert isinstance(value, list)
    return value


def _resume(word: str, strategy: str) -> JsonObject:
    return {"assistant_id": "asking", "command": {"resume": word}, "multitask_strategy": strategy}
