"""System tests of many parallel clients through two gateways: one run per key, one active run per thread, no loss.

The log determines the possible answers. So each storm ends with the independent checker over the whole log, the rows
and the recorded answers of all storms.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from tests.stack_fixtures import until
from tests.system.api import TIMEOUT, Api
from tests.system.checker.fold import Judged, judge
from tests.system.checker.judgement import judged_well, read_settled_queue
from tests.system.checker.notes import Change, Notes
from tests.system.checker.promises import TOLD_ONE_BY_ONE
from tests.system.checker.records import client_options, read_topic
from tests.system.gateways import another_gateway
from tests.system.noted import Client, effects
from tests.system.runs_env import Gate, thread_status
from tests.system.servers import RunningServer, running_server, wait_until

from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
EVENTS = "agentlog.events"
END_S = 30.0
WRITERS = 32
PATCHES = 50
SAME_KEY = 100
REFUSED = 30
MOST_LOST = 8
"""This number of lost races is a reason for 409."""


@dataclass
class Answer:
    """The answer to a request; `request_id` identifies its commit on the log.

    `token`: partition and offset of its commit; `log_end`: for a refusal, the end of its partition at that time.
    """

    status: int
    body: Json
    request_id: str
    token: tuple[int, int] = (0, -1)
    detail: str = ""
    log_end: int = 0


@dataclass
class Stage:
    """A server, a second gateway of it, and the recorded answers of all clients."""

    server: RunningServer
    second: RunningServer
    notes: Notes = field(default_factory=lambda: Notes(counting=True))

    def end_gateways(self) -> None:
        """Stop both gateways in order; the server's own one is started again."""
        (pid,) = self.server.pids("agentlog_gateway")
        assert self.second.process is not None
        self.second.process.send_signal(signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        assert self.second.process.wait(END_S) == 0
        wait_until(lambda: self.server.pids("agentlog_gateway") not in ([], [pid]), END_S, "another gateway")
        self.server.wait_ok()


@dataclass
class Storm:
    """Requests to both gateways in turn, with every answer recorded."""

    stage: Stage
    session: aiohttp.ClientSession
    consumer: AIOKafkaConsumer
    partitions: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        self.server = self.stage.server
        self.api = Api(self.server.url)
        self._next = cycle([self.server.url, self.stage.second.url])

    async def thread(self) -> str:
        """Create a thread."""
        answer = await self.send("POST", "/threads", {})
        thread_id = str(as_object(answer.body)["thread_id"])
        self.partitions[thread_id] = answer.token[0]
        return thread_id

    async def send(self, method: str, path: str, body: Json, key: str = "", to: str = "") -> Answer:
        """Send a request to the next gateway, or to the given one."""
        request_id = uuid4().hex
        headers = {"X-Request-Id": request_id, **({"Idempotency-Key": key} if key else {})}
        url = (to or next(self._next)) + path
        async with self.session.request(method, url, data=dump(body), headers=headers) as got:
            content = load(await got.read())
            answer = Answer(got.status, content, request_id)
            token = got.headers.get("X-Consistency-Token", "")
            run_id = got.headers.get("Content-Location", "").rpartition("/")[2]
        found = as_object(content)
        thread_id = str(found.get("thread_id") or path.split("/")[2])
        if answer.status < 300:
            _, partition, offset = map(int, token.split(":"))
            answer.token = partition, offset
        else:
            answer.detail = str(found["detail"])
            answer.log_end = await self.log_end(thread_id)
        told = dump(body).decode()
        self.stage.notes.changes.append(
            Change("storm", method, path, told, answer.status, key, thread_id, run_id, token)
        )
        return answer

    async def wait(self, thread_id: str, body: JsonObject) -> JsonObject:
        """Wait for the end of a run; return the values."""
        answer = await self.send("POST", f"/threads/{thread_id}/runs/wait", body)
        assert answer.status == 200, answer.detail
        return as_object(answer.body)

    async def log_end(self, thread_id: str) -> int:
        """Return the current end of the log of a thread."""
        at = TopicPartition(EVENTS, self.partitions[thread_id])
        ends: Mapping[TopicPartition, int] = await self.consumer.end_offsets([at])
        return ends[at]

    @contextmanager
    def second_gateway_paused(self) -> Generator[None]:
        """Pause the second gateway."""
        pids = list(self.stage.second.family())
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    async def judged(self, threads: Sequence[str], streams: Iterable[str] = ()) -> list[Judged]:
        """Check that there is no violation; return the commits of these threads.

        All runs must have ended. `streams`: resumable runs on the first thread, whose streams are compared too.
        """
        notes, client = self.stage.notes, Client(self.server.url, "judge", Notes())
        notes.shown = [await client.show(thread_id) for thread_id in threads]
        for run_id in streams:
            notes.streams[run_id] = await client.stream(threads[0], run_id)
        notes.effects = effects(self.server.steps())
        notes.queued = await read_settled_queue(self.server.kafka, self.server.redis)
        judged, _ = await judged_well(self.server.kafka, self.server.postgres, notes)
        return [one for one in judged if one.record.key in threads]


@pytest.fixture(scope="module")
def stage() -> Generator[Stage]:
    """Yield a server with a second gateway."""
    with running_server(config=GRAPHS) as server, another_gateway(server) as second:
        yield Stage(server, second)


@pytest.fixture
async def storm(stage: Stage) -> AsyncGenerator[Storm]:
    """Yield a client of both gateways."""
    consumer = AIOKafkaConsumer(**client_options(stage.server.kafka))
    await consumer.start()
    connector = aiohttp.TCPConnector(limit=0)
    try:
        async with aiohttp.ClientSession(timeout=TIMEOUT, connector=connector) as session:
            yield Storm(stage, session, consumer)
    finally:
        await consumer.stop()


def request_of(one: Judged) -> str:
    """Return the request whose commit is on the streams of its thread; "" for refusal facts."""
    request = as_object(one.record.value.get("request") or {}).get("id")
    return "" if one.stream.startswith("refusals-") else str(request)


def verdicts(judged: Sequence[Judged], request_id: str) -> Counter[str]:
    """Count the verdicts on the commits of a request on the streams of its thread."""
    return Counter(one.verdict for one in judged if request_of(one) == request_id)


def active_runs(judged: Sequence[Judged]) -> list[set[str]]:
    """Return the active runs after each accepted commit."""
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


def runs_between(judged: Sequence[Judged], since: int, end: int) -> list[set[str]]:
    """Return the active runs at `since`, and after each later commit before the log's end at that time."""
    states = [(one.record.offset, runs) for one, runs in zip(judged, active_runs(judged), strict=True)]
    before = [runs for offset, runs in states if offset <= since][-1:]
    return before + [runs for offset, runs in states if since < offset < end]


async def test_a_hundred_posts_with_one_key_are_one_run(storm: Storm) -> None:
    thread_id, key = await storm.thread(), uuid4().hex
    body: JsonObject = {"assistant_id": "steps", "input": {"name": key}, "stream_resumable": True}
    path = f"/threads/{thread_id}/runs"
    answers = await asyncio.gather(*(storm.send("POST", path, body, key) for _ in range(SAME_KEY)))
    assert {answer.status for answer in answers} == {200}
    run = as_object(answers[0].body)
    run_id = str(run["run_id"])
    assert [answer.body for answer in answers] == [run] * SAME_KEY
    other = await storm.send("POST", path, {**body, "input": {"name": "another"}}, key)
    assert (other.status, "Idempotency-Key" in other.detail) == (422, True)
    await storm.api.join(thread_id, run_id)
    judged = await storm.judged([thread_id], [run_id])
    created = [one for one in judged if any(kind == "RunCreated" for kind, _ in one.facts)]
    assert Counter(one.verdict for one in created)["accepted"] == 1
    starts = [line["run_id"] for line in storm.server.steps() if (line["name"], line["step"]) == (key, "one")]
    assert set(starts) == {run_id}


async def test_a_keyed_request_that_lost_a_race_succeeds_when_it_is_sent_again(storm: Storm) -> None:
    thread_id, gate = await storm.thread(), Gate(storm.server)
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
    judged = await storm.judged([thread_id])
    assert max(map(len, active_runs(judged))) == 1
    lost = [verdicts(judged, answer.request_id)["version_conflict"] for answer in first if answer.status == 409]
    assert sum(lost) > 0, "nobody lost a race on the log"


async def _idle(api: Api, thread_id: str) -> bool:
    return await thread_status(api, thread_id) == "idle"


async def test_no_key_is_lost_when_many_patch_one_threads_metadata(storm: Storm) -> None:
    thread_id = await storm.thread()
    path = f"/threads/{thread_id}"
    await storm.wait(thread_id, {"assistant_id": "steps", "input": {}})
    before = as_object((await storm.api.get(path))["metadata"])

    async def write(writer: int) -> None:
        mine: JsonObject = {}
        for number in range(PATCHES):
            mine[f"{writer}-{number}"] = number
            body: JsonObject = {"metadata": {f"{writer}-{number}": number}}
            answer = await storm.send("PATCH", path, body)
            assert answer.status == 200, answer.detail
            shown = as_object(as_object(answer.body)["metadata"])
            assert {name: shown.get(name) for name in mine} == mine, "an answer shows all that its writer wrote before"

    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    metadata = as_object((await storm.api.get(path))["metadata"])
    written = {f"{writer}-{number}": number for writer in range(WRITERS) for number in range(PATCHES)}
    assert metadata == {**before, **written}
    patches = [one for one in await storm.judged([thread_id]) if one.stream == f"meta-{thread_id}"]
    assert Counter(one.verdict for one in patches) == {"accepted": WRITERS * PATCHES}


@dataclass
class RacedUpdate:
    """A state update, the log's end before it was sent, and its answer; `until`: the end of its possible reasons."""

    name: str
    since: int
    answer: Answer

    @property
    def until(self) -> int:
        """Return the end of the commits that may be a reason for the answer."""
        return self.answer.log_end or self.answer.token[1]


async def test_each_answer_to_racing_state_updates_is_what_the_log_says(storm: Storm, full: bool) -> None:
    thread_id, rounds, runs = await storm.thread(), 20 if full else 8, 5 if full else 2
    path = f"/threads/{thread_id}"
    await storm.wait(thread_id, {"assistant_id": "steps", "input": {}})
    begun = await storm.log_end(thread_id) - 1
    told: dict[str, RacedUpdate] = {}

    async def write(writer: int) -> None:
        seen = begun
        for number in range(rounds):
            name = f"{writer}-{number}"
            body: JsonObject = {"values": {"done": [name]}, "as_node": "five"}
            answer = await storm.send("POST", f"{path}/state", body)
            told[answer.request_id] = RacedUpdate(name, seen, answer)
            seen = max(seen, answer.token[1])

    async def disturb() -> None:
        """Create a run from time to time; in between none is active, so that only lost races justify a 409."""
        for _ in range(runs):
            due = len(told) + WRITERS * rounds // (runs + 2)
            await until(partial(_grown, told, due))
            await storm.wait(thread_id, {"assistant_id": "steps", "input": {}})

    await asyncio.gather(disturb(), *(write(writer) for writer in range(WRITERS)))
    judged = await storm.judged([thread_id])
    done = as_object((await storm.api.get(f"{path}/state"))["values"])["done"]
    assert isinstance(done, list)
    by_hand = [name for name in done if "-" in str(name)]
    statuses, voids, alone = Counter[int](), 0, 0
    for request_id, one in told.items():
        left = verdicts(judged, request_id)
        statuses[one.answer.status] += 1
        voids += left.total() - left["accepted"]
        was_in = any(runs_between(judged, one.since, one.until))
        if one.answer.status == 200:
            assert left["accepted"] == 1, f"{one.name} was told 200: {left}"
            alone += not was_in
        else:
            assert (one.answer.status, left["accepted"]) == (409, 0), f"{one.name}: {one.answer.detail}, {left}"
            reasons = (left["version_conflict"] >= MOST_LOST, left["view_locked"] > 0, was_in)
            assert any(reasons), f"{one.name} was told {one.answer.detail!r} and left {left}"
    accepted = [one.name for one in told.values() if one.answer.status == 200]
    assert sorted(map(str, by_hand)) == sorted(accepted)
    assert statuses[409] > 0, "nobody met a run"
    assert alone > len(accepted) / 2, "a 409 would have been right nearly always"
    assert voids > 0, "no race was lost on the log"
    order = [told[request].name for one in judged if one.verdict == "accepted" and (request := request_of(one)) in told]
    assert order == by_hand, "the state holds them in the order of the log"


def _grown(found: Sized, to: int) -> bool:
    return len(found) >= to


async def test_of_those_that_reject_never_two_are_in_on_two_gateways(storm: Storm, full: bool) -> None:
    thread_id, rounds = await storm.thread(), 200 if full else 15
    body: JsonObject = {"assistant_id": "steps", "input": {}, "multitask_strategy": "reject"}
    told: list[tuple[int, Answer]] = []
    for _ in range(rounds):
        begun = await storm.log_end(thread_id) - 1
        answers = await asyncio.gather(*(storm.send("POST", f"/threads/{thread_id}/runs", body) for _ in range(4)))
        told += [(begun, answer) for answer in answers]
        assert {answer.status for answer in answers} <= {200, 409}
        assert any(answer.status == 200 for answer in answers)
        await until(lambda: _idle(storm.api, thread_id))
    judged = await storm.judged([thread_id])
    assert max(map(len, active_runs(judged))) == 1
    voids = Counter(one.verdict for one in judged)
    assert voids["version_conflict"] > 0, "the gateways never raced"
    created = [one for one in judged if one.verdict == "accepted" and one.facts[0][0] == "RunCreated"]
    assert len(created) == sum(answer.status == 200 for _, answer in told)
    for begun, answer in told:
        assert answer.status == 200 or any(runs_between(judged, begun, answer.log_end)), answer.detail


@pytest.mark.parametrize("strategy", ["enqueue", "reject"])
async def test_of_two_answers_to_one_interrupt_one_counts_and_the_other_is_refused(
    storm: Storm, full: bool, strategy: str
) -> None:
    refused: dict[str, Answer] = {}
    for _ in range(30 if full else 8):
        gate = Gate(storm.server)
        thread_id = await interrupted_thread(storm, gate.name)
        path = f"/threads/{thread_id}/runs"
        both = [storm.send("POST", path, _resume(word, strategy)) for word in ("yes", "no")]
        answers = await asyncio.gather(*both)
        assert sorted(answer.status for answer in answers) == [200, 409]
        won, lost = sorted(answers, key=lambda answer: answer.status)
        run_id = str(as_object(won.body)["run_id"])
        assert run_id in lost.detail if strategy == "enqueue" else "already running" in lost.detail
        gate.open()
        values = await storm.api.join(thread_id, run_id)
        assert values["answers"] == [f"first {('yes', 'no')[answers.index(won)]}"]
        await answer_last(storm, thread_id, strategy)
        refused[thread_id] = lost
    judged = await storm.judged(list(refused))
    left = [verdicts(judged, lost.request_id) for lost in refused.values()]
    assert sum(one["accepted"] for one in left) == 0
    assert sum(one["version_conflict"] for one in left) > 0, "no race was lost on the log"


@dataclass
class Late:
    """An answer that came to a gateway which was then paused until the run of the other answer had ended."""

    thread_id: str
    key: str
    won: Answer
    lost: Answer


@pytest.mark.timeout(240)
@pytest.mark.parametrize("strategy", ["enqueue", "reject"])
async def test_an_answer_whose_gateway_stood_still_meanwhile_does_not_answer_what_is_asked_next(
    storm: Storm, full: bool, strategy: str
) -> None:
    wanted, rounds, late = 20 if full else 3, 0, list[Late]()
    while len(late) < wanted:
        rounds += 1
        assert rounds <= 20 * wanted, (
            f"in {rounds} rounds the gateway stood still {len(late)} times at the right moment"
        )
        thread_id, key = await interrupted_thread(storm), uuid4().hex
        path, begun = f"/threads/{thread_id}/runs", await storm.log_end(thread_id)
        slow = asyncio.create_task(storm.send("POST", path, _resume("no", strategy), key, storm.stage.second.url))
        fast = asyncio.create_task(storm.send("POST", path, _resume("yes", strategy), to=storm.server.url))
        await on_the_log(storm, thread_id, begun + 2)
        with storm.second_gateway_paused():
            won = await fast
            await ended(storm, thread_id, won)
            waits = not slow.done()
        lost = await slow
        await ended(storm, thread_id, lost)
        judged = judge(await read_topic(storm.server.kafka, EVENTS))
        left = verdicts(judged, lost.request_id)
        assert left["version_conflict"] == 0 or (won.status, lost.status) == (200, 409), f"{lost}: {left}"
        if waits and left["version_conflict"]:
            late.append(Late(thread_id, key, won, lost))
        elif {won.status, lost.status} != {200}:
            await answer_last(storm, thread_id, strategy)
    print(f"{strategy}: {len(late)} answers in {rounds} rounds came back when the next question was open")
    for one in late:
        again = await storm.send("POST", f"/threads/{one.thread_id}/runs", _resume("no", strategy), one.key)
        assert again.status == 409, "sent again, it is still an answer to the first question"
        assert await answer_last(storm, one.thread_id, strategy) == ["first yes", "second maybe"]
    await storm.judged([one.thread_id for one in late])


async def interrupted_thread(storm: Storm, gate: str = "") -> str:
    """Return a thread at its first interrupt; after the answer, its graph waits for the gate."""
    thread_id = await storm.thread()
    body: JsonObject = {"assistant_id": "asking", "input": {"name": thread_id, "gate": gate}}
    await storm.wait(thread_id, body)
    return thread_id


async def answer_last(storm: Storm, thread_id: str, strategy: str) -> list[Json]:
    """Answer the second interrupt; return the answers in the thread's state."""
    assert await thread_status(storm.api, thread_id) == "interrupted"
    answers = as_list((await storm.wait(thread_id, _resume("maybe", strategy)))["answers"])
    assert answers[1:] == ["second maybe"]
    return answers


async def ended(storm: Storm, thread_id: str, answer: Answer) -> None:
    """Wait for the end of the run of an accepted answer."""
    if answer.status == 200:
        await storm.api.join(thread_id, str(as_object(answer.body)["run_id"]))


async def on_the_log(storm: Storm, thread_id: str, end: int) -> None:
    """Return as soon as the log of a thread has reached this state."""
    deadline = time.monotonic() + 20
    while await storm.log_end(thread_id) < end:
        assert time.monotonic() < deadline, f"the log of {thread_id} never ended at {end}"


async def test_an_answer_to_the_next_question_may_come_before_the_run_that_asked_it_has_ended(storm: Storm) -> None:
    thread_id = await interrupted_thread(storm)
    path = f"/threads/{thread_id}/runs"
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
    await storm.judged([thread_id])


async def test_every_refusal_is_on_the_log_once_its_gateway_has_ended(storm: Storm) -> None:
    thread_id, gate = await storm.thread(), Gate(storm.server)
    path = f"/threads/{thread_id}/runs"
    body: JsonObject = {"assistant_id": "steps", "input": gate.held(), "multitask_strategy": "reject"}
    first = await storm.send("POST", path, body)
    refused = [await storm.send("POST", path, body) for _ in range(REFUSED)]
    assert {answer.status for answer in refused} == {409}
    gate.open()
    await storm.api.join(thread_id, str(as_object(first.body)["run_id"]))
    await asyncio.to_thread(storm.stage.end_gateways)
    storm.stage.notes.counting = False  # from here on, each 409 of each storm must be justified
    judged = await storm.judged([thread_id])
    counts = [data["count"] for one in judged for kind, data in one.facts if kind == "CommandRefused"]
    assert (len(counts), sum(map(int, map(str, counts)))) == (2 * (TOLD_ONE_BY_ONE + 1), REFUSED)


def as_list(value: Json) -> list[Json]:
    """Return a list."""
    assert isinstance(value, list)
    return value


def _resume(word: str, strategy: str) -> JsonObject:
    return {"assistant_id": "asking", "command": {"resume": word}, "multitask_strategy": strategy}
