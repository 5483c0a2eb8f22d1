"""Two of each role on one stack: work and partitions are shared, whoever dies is replaced, and restarts fail nobody."""

# The SDK types states and results as bare dicts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import LangGraphError
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.balancer import Balancer, balancer
from tests.system.checker.fold import Judged, judge
from tests.system.checker.invariants import Verdicts, check
from tests.system.checker.records import read_topic
from tests.system.checker.rows import other_verdicts, read_ledger
from tests.system.load import Writers
from tests.system.rebuilds import ask
from tests.system.several import TWO_OF_EACH, Several, several

from agentlog_facts.json_value import JsonObject, as_object, dump, load
from agentlog_infra.partitioner import partition_of

PARTITIONS = 8
TAKE_OVER_S = 10.0
HAND_OVER_S = 3.0
STEPS = ["one", "two", "three", "four", "five"]
CLIENTS, FULL_CLIENTS = 4, 16
RUNS, FULL_RUNS = 16, 100


@pytest.fixture(scope="module")
def running() -> Generator[Several]:
    """Give two of each role, shared by the tests of this file."""
    with several() as made:
        yield made
        assert made.errors() == [], "\n".join(made.errors())[:5000]


async def judged_well(running: Several) -> tuple[list[Judged], Verdicts]:
    """Judge the log and the ledger; nothing may be wrong and no run open."""
    judged = judge(await read_topic(running.address("kafka"), "agentlog.events"))
    found = check(judged)
    assert found.violations + other_verdicts(judged, await read_ledger(running.address("postgres"))) == []
    assert found.open_runs == []
    return judged, found


def thread_on(partitions: Sequence[int]) -> str:
    """Return a new id of a thread on one of these partitions."""
    while True:
        thread_id = str(uuid4())
        if partition_of(thread_id.encode(), PARTITIONS) in partitions:
            return thread_id


def shares(running: Several) -> dict[str, list[int]]:
    """Return projector -> partitions, of those that run, as each said last."""
    found: dict[str, list[int]] = {}
    for name, member in running.members.items():
        if name.startswith("projector") and member.running.poll() is None:
            took = member.lines("projector.took")
            partitions = took[-1]["partitions"] if took else []
            assert isinstance(partitions, list)
            found[name] = partitions
    return found


async def shared_by_two(running: Several) -> dict[str, list[int]]:
    """Wait until two projectors have half of the partitions each."""
    half = [PARTITIONS // 2] * 2
    await until(lambda: [len(one) for one in shares(running).values()] == half, within_secs=30)
    found = shares(running)
    assert sorted(number for one in found.values() for number in one) == list(range(PARTITIONS))
    return found


async def seconds_until_answered(running: Several, partitions: Sequence[int]) -> float:
    """Create a thread on each of the partitions, through both gateways; return how long the slowest took."""
    began = time.monotonic()

    async def create(number: int) -> None:
        body = dump({"thread_id": thread_on([number])})
        status, content = await Api(running.urls[number % 2]).raw("POST", "/threads", body)
        assert status == 200, content

    await asyncio.gather(*(create(number) for number in partitions))
    return time.monotonic() - began


def test_the_stack_file_names_all_roles(running: Several) -> None:
    listed = running.stack_file()["roles"]
    assert isinstance(listed, list)
    roles = [as_object(one) for one in listed]
    assert {int(str(one["pid"])) for one in roles} == {member.running.pid for member in running.members.values()}
    assert Counter(str(one["role"]) for one in roles) == Counter(name.partition("-")[0] for name in running.members)
    assert sorted(str(one["url"]) for one in roles if one["url"]) == sorted(running.urls)


@pytest.mark.timeout(240)
async def test_a_killed_projector_is_replaced_within_ten_seconds_and_nothing_is_written_twice(
    running: Several,
) -> None:
    share = (await shared_by_two(running))["projector-1"]
    posting = asyncio.ensure_future(seconds_until_answered(running, share * 4))  # it dies with work on its table
    running.kill("projector-1")
    took = await seconds_until_answered(running, share)
    assert took < TAKE_OVER_S
    await posting
    assert shares(running) == {"projector-2": list(range(PARTITIONS))}
    running.begin("projector-1")
    running.wait_ready("projector-1")
    await shared_by_two(running)
    print(f"take-over after kill -9: {took:.2f} s")
    await judged_well(running)


@pytest.mark.timeout(240)
async def test_a_paused_projector_is_replaced_and_its_late_transaction_changes_nothing(running: Several) -> None:
    share, zombie = (await shared_by_two(running))["projector-2"], running.members["projector-2"]
    posting = asyncio.ensure_future(seconds_until_answered(running, share * 4))
    running.signal("projector-2", signal.SIGSTOP)
    try:
        took = await seconds_until_answered(running, share)
        await posting
        await until(lambda: shares(running)["projector-1"] == list(range(PARTITIONS)))
        await seconds_until_answered(running, share)
    finally:
        running.signal("projector-2", signal.SIGCONT)
    assert took < TAKE_OVER_S
    await until(lambda: bool(zombie.lines("projector.fenced")), within_secs=30)
    await shared_by_two(running)
    await seconds_until_answered(running, range(PARTITIONS))
    print(f"take-over after SIGSTOP: {took:.2f} s; then: {zombie.lines('projector.fenced')[-1]['reason']}")
    await judged_well(running)


@pytest.mark.timeout(240)
async def test_two_workers_share_the_runs_and_two_housekeepers_free_each_lost_run_once(running: Several) -> None:
    apis = [Api(url) for url in running.urls]
    gate = f"gate-{uuid4().hex}"
    threads = [await apis[number % 2].thread() for number in range(RUNS)]
    work: JsonObject = {"hold": {"two": gate}, "name": gate}
    runs = [await apis[0].start_run(thread, "steps", work) for thread in threads]

    def holding(pid: int) -> set[str]:
        lines = [line for line in running.steps() if line["name"] == gate and line["step"] == "two"]
        return {line["run_id"] for line in lines if int(line["pid"]) == pid}

    pids = [running.members[name].running.pid for name in ("worker-1", "worker-2")]
    await until(lambda: len(holding(pids[0]) | holding(pids[1])) == RUNS, within_secs=30)
    assert holding(pids[0])
    assert holding(pids[1])
    lost = holding(pids[0])
    running.kill("worker-1")
    running.begin("worker-1")
    await until(lambda: lost <= holding(pids[1]) | holding(running.members["worker-1"].running.pid), within_secs=60)
    (running.gates / gate).touch()
    ends = await asyncio.gather(*(apis[1].join(*both) for both in zip(threads, runs, strict=True)))
    assert [end["done"] for end in ends] == [STEPS] * RUNS
    judged, found = await judged_well(running)
    attempts = {run: found.attempts[run] for run in runs}
    assert attempts == {run: 2 if run in lost else 1 for run in runs}
    assert released(judged) & set(runs) == lost
    freed = [name for name in running.members if name.startswith("housekeeper") and released_by(running, name) & lost]
    print(f"{len(lost)} of {RUNS} runs were freed once each, by {' and '.join(freed)}")


def released(judged: Sequence[Judged]) -> set[str]:
    """Return the runs with an accepted release; none may have two."""
    found: Counter[str] = Counter()
    for commit in judged:
        if commit.verdict == "accepted":
            found.update(str(data["run_id"]) for kind, data in commit.facts if kind == "RunReleased")
    assert set(found.values()) <= {1}
    return set(found)


def released_by(running: Several, name: str) -> set[str]:
    """Return the runs of which a housekeeper says that it released them."""
    return {str(line["run_id"]) for line in running.members[name].lines("run.released") if line["by_us"]}


OWNERS = "SELECT array(SELECT count(owner) FROM ledger.positions GROUP BY owner)"


@pytest.mark.timeout(240)
async def test_a_rebuild_under_two_projectors_and_two_gateways_fails_no_request_and_both_go_on(
    running: Several, full: bool
) -> None:
    writers, uri = Writers(running.urls), running.address("postgres")
    took = {name: len(member.lines("projector.took")) for name, member in running.members.items()}
    async with writers.going(4):
        for _ in range(5 if full else 1):
            await shared_by_two(running)
            before = writers.rounds
            said = await asyncio.to_thread(running.rebuilt)
            assert ("the same: " in said, "switched" in said) == (True, True), said
            assert writers.rounds >= before + 4, "nobody wrote while it went on"

    async def both_fold() -> bool:
        return await ask(uri, OWNERS) == [PARTITIONS // 2] * 2

    await until(both_fold, within_secs=30)
    for name in ("projector-1", "projector-2"):
        assert len(running.members[name].lines("projector.took")) > took[name], f"{name} did not take the new rows"
    assert writers.failed == []
    await asyncio.to_thread(running.rows_are_those_of_a_fresh_fold)
    await writers.judged(running.address("kafka"), uri)


@dataclass
class Load:
    """Clients with the official SDK, and what came of their requests."""

    url: str
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    done: Counter[str] = field(default_factory=Counter[str])
    failed: list[str] = field(default_factory=list[str])

    async def client(self, number: int) -> None:
        """Do one thing after the other until told to stop; each must succeed."""
        kinds = [self._long] if number == 0 else [self._wait, self._stream, self._background, self._stateless]
        async with get_client(url=self.url) as sdk:
            while not self.stop.is_set():
                for kind in kinds:
                    try:
                        await kind(sdk)
                    except (httpx.HTTPError, LangGraphError, AssertionError) as error:
                        self.failed.append(f"{kind.__name__}: {type(error).__name__}: {error} {_asked(error)}")

    async def more(self, count: int) -> None:
        """Wait until so many more requests have succeeded."""
        before = self.done.total()
        await until(lambda: self.done.total() >= before + count, within_secs=60)

    async def _thread(self, sdk: LangGraphClient) -> str:
        thread_id = str((await sdk.threads.create())["thread_id"])
        await sdk.threads.update(thread_id, metadata={"seen": True})
        self.done["plain"] += 2
        return thread_id

    async def _wait(self, sdk: LangGraphClient) -> None:
        thread_id = await self._thread(sdk)
        values = await sdk.runs.wait(thread_id, "steps", input={"sleep_ms": 120})
        assert seen(values)["done"] == STEPS
        assert seen((await sdk.threads.get_state(thread_id))["values"])["done"] == STEPS
        self.done["wait"] += 1
        self.done["plain"] += 1

    async def _stream(self, sdk: LangGraphClient) -> None:
        thread_id = await self._thread(sdk)
        parts = sdk.runs.stream(
            thread_id, "steps", input={"sleep_ms": 150}, stream_mode="updates", stream_resumable=True
        )
        nodes = [name async for part in parts if part.event == "updates" for name in seen(part.data)]
        assert nodes == STEPS, nodes
        self.done["stream"] += 1

    async def _long(self, sdk: LangGraphClient) -> None:
        """Be open when a gateway stops, for longer than it waits: the SDK comes back and misses nothing."""
        thread_id = await self._thread(sdk)
        parts = sdk.runs.stream(
            thread_id, "steps", input={"sleep_ms": 1500}, stream_mode="updates", stream_resumable=True
        )
        nodes = [name async for part in parts if part.event == "updates" for name in seen(part.data)]
        assert list(dict.fromkeys(nodes)) == STEPS, nodes
        self.done["long stream"] += 1
        values = await sdk.runs.wait(thread_id, "steps", input={"sleep_ms": 1000})
        assert seen(values)["done"] == STEPS * 2
        self.done["long wait"] += 1

    async def _background(self, sdk: LangGraphClient) -> None:
        thread_id = await self._thread(sdk)
        run = await sdk.runs.create(thread_id, "steps", input={"sleep_ms": 120})
        assert seen(await sdk.runs.join(thread_id, run["run_id"]))["done"] == STEPS
        assert (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "success"
        self.done["background"] += 1
        self.done["plain"] += 2

    async def _stateless(self, sdk: LangGraphClient) -> None:
        assert seen(await sdk.runs.wait(None, "steps", input={"sleep_ms": 120}))["done"] == STEPS
        self.done["wait"] += 1


def _asked(error: Exception) -> str:
    """Return what was asked for when, for the message of a failed test."""
    now = time.strftime("%H:%M:%S", time.gmtime())
    return f"{error.request.method} {error.request.url} {now}" if isinstance(error, httpx.RequestError) else now


def seen(answer: object) -> JsonObject:
    """Return an answer of the SDK as plain JSON."""
    return as_object(load(json.dumps(answer)))


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:Request failed, attempting reconnect:UserWarning")
@pytest.mark.filterwarnings("ignore:Reconnecting without a Last-Event-ID:UserWarning")
async def test_each_process_is_restarted_under_load_and_no_request_fails(running: Several, full: bool) -> None:
    seconds: dict[str, tuple[float, float]] = {}
    handed_over: list[float] = []
    fenced = len(fences(running))
    async with balancer(running.urls) as (url, balancing):
        load_on = Load(url)
        clients = [asyncio.create_task(load_on.client(n)) for n in range(FULL_CLIENTS if full else CLIENTS)]
        try:
            await load_on.more(2 * CLIENTS)
            for name in reversed(TWO_OF_EACH):
                share = (await shared_by_two(running)).get(name, [])
                restarting = asyncio.ensure_future(asyncio.to_thread(running.restart, name))
                handed_over.append(await seconds_until_answered(running, share))
                seconds[name] = await restarting
                await load_on.more(CLIENTS)
        finally:
            load_on.stop.set()
            await asyncio.gather(*clients)
    told(load_on, balancing, seconds)
    print(f"hand-over at most {max(handed_over):.2f} s")
    assert load_on.failed == [], "\n".join(load_on.failed)
    assert max(handed_over) < HAND_OVER_S
    assert len(fences(running)) == fenced, "a hand-over fences nobody"
    assert min(balancing.given.values()) > 0
    _, found = await judged_well(running)
    assert set(found.runs.values()) == {"success"}
    await asyncio.to_thread(running.rows_are_those_of_a_fresh_fold)


def fences(running: Several) -> list[str]:
    """Return what projectors said when they found somebody else at their partitions."""
    said = running.said("projector-1") + running.said("projector-2")
    return [line for line in said.splitlines() if '"projector.fenced"' in line]


def told(load_on: Load, balancing: Balancer, seconds: dict[str, tuple[float, float]]) -> None:
    """Print the figures."""
    took = ", ".join(f"{name} {stop:.1f}+{start:.1f}" for name, (stop, start) in seconds.items())
    print(f"{load_on.done.total()} requests ({dict(load_on.done)}), {len(load_on.failed)} failed;")
    print(f"connections {balancing.given}, refused {balancing.refused}; seconds to stop + start: {took}")
