"""System tests of two processes per role on one stack: shared work, replaced processes, restarts without failures."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

import pytest
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.balancer import Balancer, balancer
from tests.system.checker import judgement
from tests.system.checker.fold import Judged
from tests.system.checker.invariants import Verdicts
from tests.system.load import Writers
from tests.system.rebuilds import ask
from tests.system.sdk_clients import KINDS, STEPS, Held, Load
from tests.system.several import TWO_OF_EACH, Several, held_amid_a_batch, several

from agentlog_facts.json_value import JsonObject, as_object, dump
from agentlog_infra.kafka.partitions import partition_of

PARTITIONS = 8
TAKE_OVER_S = 10.0
HAND_OVER_S = 3.0
GATEWAYS = ("gateway-2", "gateway-1")
CLIENTS, FULL_CLIENTS = 4, 16
HELD, FULL_HELD = 2, 8
RUNS, FULL_RUNS = 16, 100
JOBS, FULL_JOBS = 10, 60
"""Parallel runs of one worker: more than half of RUNS, and less than all, so that both workers have some."""
TAKE_OVERS, FULL_TAKE_OVERS = 1, 10
LATE = "another projector folds this partition"
"""The error of PostgreSQL for a transaction of a replaced projector."""


@pytest.fixture(scope="module")
def running(full: bool) -> Generator[Several]:
    """Yield two of each role, shared by the tests of this file."""
    with several(settings={"N_JOBS_PER_WORKER": str(FULL_JOBS if full else JOBS)}) as made:
        yield made
        assert made.errors() == [], "\n".join(made.errors())[:5000]


async def judged_well(running: Several) -> tuple[list[Judged], Verdicts]:
    """Run the checker over log and verdicts; there must be no violation and no open run."""
    return await judgement.judged_well(running.address("kafka"), running.address("postgres"))


def thread_on(partitions: Sequence[int]) -> str:
    """Return an id of a new thread on one of these partitions."""
    while True:
        thread_id = str(uuid4())
        if partition_of(thread_id.encode(), PARTITIONS) in partitions:
            return thread_id


def shares(running: Several) -> dict[str, list[int]]:
    """Return projector -> partitions, from the last report of each running projector."""
    found: dict[str, list[int]] = {}
    for name, member in running.members.items():
        if name.startswith("projector") and member.running.poll() is None:
            took = member.lines("projector.took")
            partitions = took[-1]["partitions"] if took else []
            assert isinstance(partitions, list)
            found[name] = [int(str(number)) for number in partitions]
    return found


async def shared_by_two(running: Several) -> dict[str, list[int]]:
    """Wait until two projectors own half of the partitions each."""

    def are_shared() -> bool:  # a paused projector reports its old partitions for a while
        found = list(shares(running).values())
        half, together = [PARTITIONS // 2] * 2, sorted(number for one in found for number in one)
        return [len(one) for one in found] == half and together == list(range(PARTITIONS))

    await until(are_shared, within_secs=30)
    return shares(running)


async def created(running: Several, partitions: Sequence[int]) -> list[str]:
    """Create a thread on each of the partitions, through both gateways; return their ids once all are answered."""

    async def create(number: int) -> str:
        thread_id = thread_on([number])
        status, content = await Api(running.urls[number % 2]).raw("POST", "/threads", dump({"thread_id": thread_id}))
        assert status == 200, content
        return thread_id

    return await asyncio.gather(*(create(number) for number in partitions))


async def seconds_until_answered(running: Several, partitions: Sequence[int]) -> float:
    """Create a thread on each of the partitions; return the seconds of the slowest request."""
    began = time.monotonic()
    await created(running, partitions)
    return time.monotonic() - began


async def hit_amid_a_batch(running: Several, share: Sequence[int], hit: Callable[[], None]) -> tuple[float, list[str]]:
    """Create threads on a projector's partitions, and signal it when it has read them and written nothing.

    Return the seconds from then to the last answer, and the threads.
    """
    async with held_amid_a_batch(running.address("postgres")) as one_waits:
        creating = asyncio.ensure_future(created(running, list(share) * 4))
        await until(one_waits)
        hit()
        began = time.monotonic()
    threads = await creating
    return time.monotonic() - began, threads


async def written_once(running: Several, threads: Sequence[str]) -> None:
    """Check that each thread was created once, and that the rows equal those of a single fold of the whole log."""
    judged, _ = await judged_well(running)
    facts = Counter(
        (commit.record.key, kind) for commit in judged if commit.verdict == "accepted" for kind, _ in commit.facts
    )
    assert {thread: facts[thread, "ThreadCreated"] for thread in threads} == dict.fromkeys(threads, 1)
    await asyncio.to_thread(running.rows_are_those_of_a_fresh_fold)


def test_the_stack_file_names_all_roles(running: Several) -> None:
    listed = running.stack_file()["roles"]
    assert isinstance(listed, list)
    roles = [as_object(one) for one in listed]
    assert {int(str(one["pid"])) for one in roles} == {member.running.pid for member in running.members.values()}
    assert Counter(str(one["role"]) for one in roles) == Counter(name.partition("-")[0] for name in running.members)
    assert sorted(str(one["url"]) for one in roles if one["url"]) == sorted(running.urls)


@pytest.mark.timeout(600)
async def test_a_killed_projector_is_replaced_within_ten_seconds_and_nothing_is_written_twice(
    running: Several, full: bool
) -> None:
    seconds: list[float] = []
    threads: list[str] = []
    for _ in range(FULL_TAKE_OVERS if full else TAKE_OVERS):
        share = (await shared_by_two(running))["projector-1"]
        took, answered = await hit_amid_a_batch(running, share, lambda: running.kill("projector-1"))
        seconds.append(max(took, await seconds_until_answered(running, share)))
        threads += answered
        assert shares(running) == {"projector-2": list(range(PARTITIONS))}
        running.begin("projector-1")
        running.wait_ready("projector-1")
    await shared_by_two(running)
    print(f"{len(seconds)} take-overs after kill -9, {len(threads)} requests under way: at most {max(seconds):.2f} s")
    assert max(seconds) < TAKE_OVER_S
    await written_once(running, threads)


@pytest.mark.timeout(600)
async def test_a_paused_projector_is_replaced_and_its_late_transaction_changes_nothing(
    running: Several, full: bool
) -> None:
    seconds: list[float] = []
    threads: list[str] = []
    zombie = running.members["projector-2"]
    for _ in range(FULL_TAKE_OVERS if full else TAKE_OVERS):
        share = (await shared_by_two(running))["projector-2"]
        try:
            took, answered = await hit_amid_a_batch(
                running, share, lambda: running.signal("projector-2", signal.SIGSTOP)
            )
            await until(lambda: shares(running)["projector-1"] == list(range(PARTITIONS)))
            seconds.append(max(took, await seconds_until_answered(running, share)))
        finally:
            running.signal("projector-2", signal.SIGCONT)
        threads += answered
        await until(lambda: len(zombie.lines("projector.fenced")) == len(seconds), within_secs=30)
        assert LATE in str(zombie.lines("projector.fenced")[-1]["reason"]), "it came to write, and was too late"
    await shared_by_two(running)
    print(f"{len(seconds)} take-overs after SIGSTOP, {len(threads)} requests under way: at most {max(seconds):.2f} s")
    assert max(seconds) < TAKE_OVER_S
    await written_once(running, threads + await created(running, range(PARTITIONS)))


@pytest.mark.timeout(240)
async def test_two_workers_share_the_runs_and_two_housekeepers_free_each_lost_run_once(
    running: Several, full: bool
) -> None:
    count = FULL_RUNS if full else RUNS
    apis = [Api(url) for url in running.urls]
    gate = f"gate-{uuid4().hex}"
    threads = [await apis[number % 2].thread() for number in range(count)]
    work: JsonObject = {"hold": {"two": gate}, "name": gate}
    runs = [await apis[0].start_run(thread, "steps", work) for thread in threads]

    def holding(pid: int) -> set[str]:
        lines = [line for line in running.steps() if line["name"] == gate and line["step"] == "two"]
        return {line["run_id"] for line in lines if int(line["pid"]) == pid}

    pids = [running.members[name].running.pid for name in ("worker-1", "worker-2")]
    await until(lambda: len(holding(pids[0]) | holding(pids[1])) == count, within_secs=30)
    assert holding(pids[0])
    assert holding(pids[1])
    lost = holding(pids[0])
    running.kill("worker-1")
    running.begin("worker-1")
    again = running.members["worker-1"].running.pid
    await until(lambda: bool(lost & holding(again)), within_secs=60)
    assert len(lost & holding(again)) == 1, "a lost run is executed alone"
    assert not lost & holding(pids[1]), "a worker with other runs executes no lost one"
    (running.gates / gate).touch()
    ends = await asyncio.gather(*(apis[1].join(*both) for both in zip(threads, runs, strict=True)))
    assert [end["done"] for end in ends] == [STEPS] * count
    judged, found = await judged_well(running)
    attempts = {run: found.attempts[run] for run in runs}
    assert attempts == {run: 2 if run in lost else 1 for run in runs}
    assert released(judged) & set(runs) == lost
    freed = [name for name in running.members if name.startswith("housekeeper") and released_by(running, name) & lost]
    print(f"{len(lost)} of {count} runs were freed once each, by {' and '.join(freed)}")


def released(judged: Sequence[Judged]) -> set[str]:
    """Return the runs with an accepted release; none may have two."""
    found: Counter[str] = Counter()
    for commit in judged:
        if commit.verdict == "accepted":
            found.update(str(data["run_id"]) for kind, data in commit.facts if kind == "RunReleased")
    assert set(found.values()) <= {1}
    return set(found)


def released_by(running: Several, name: str) -> set[str]:
    """Return the runs that a housekeeper reports as released."""
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


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:Request failed, attempting reconnect:UserWarning")
@pytest.mark.filterwarnings("ignore:Reconnecting without a Last-Event-ID:UserWarning")
async def test_each_process_is_restarted_under_load_and_no_request_fails(running: Several, full: bool) -> None:
    restarts: dict[str, Restart] = {}
    fenced = len(fences(running))
    async with balancer(running.urls) as (url, balancing):
        load_on, held = Load(url), Held(running, url)
        clients = [asyncio.create_task(load_on.client(n)) for n in range(FULL_CLIENTS if full else CLIENTS)]
        try:
            await load_on.more(2 * CLIENTS)
            async with held.open(FULL_HELD if full else HELD):
                for name in GATEWAYS:
                    restarts[name] = await restarted(running, name, load_on)
            for name in reversed(TWO_OF_EACH):
                if name not in GATEWAYS:
                    restarts[name] = await restarted(running, name, load_on)
        finally:
            load_on.stop.set()
            await asyncio.gather(*clients)
    print_figures(load_on, balancing, restarts)
    print(f"open over the restarts of both gateways, came back so often: {dict(held.came_back)}")
    assert load_on.failed == [], "\n".join(load_on.failed)
    assert min(load_on.done[kind] for kind in KINDS) > 0
    assert min(held.came_back.values()) > 0, "each was cut by one gateway or the other"
    assert max(one.handed_over for one in restarts.values()) < HAND_OVER_S
    assert len(fences(running)) == fenced, "a hand-over fences nobody"
    assert min(balancing.given.values()) > 0
    _, found = await judged_well(running)
    assert set(found.runs.values()) == {"success"}
    await asyncio.to_thread(running.rows_are_those_of_a_fresh_fold)


@dataclass(frozen=True)
class Restart:
    """The seconds in which a process stopped, was ready again, and others answered for its partitions."""

    stop: float
    start: float
    handed_over: float


async def restarted(running: Several, name: str, load_on: Load) -> Restart:
    """Restart a process in order during continuous requests."""
    share = (await shared_by_two(running)).get(name, [])
    restarting = asyncio.ensure_future(asyncio.to_thread(running.restart, name))
    handed_over = await seconds_until_answered(running, share)
    stop, start = await restarting
    await load_on.more(CLIENTS)
    return Restart(stop, start, handed_over)


def fences(running: Several) -> list[str]:
    """Return the reports of projectors that found another owner at their partitions."""
    said = running.output("projector-1") + running.output("projector-2")
    return [line for line in said.splitlines() if '"projector.fenced"' in line]


def print_figures(load_on: Load, balancing: Balancer, restarts: Mapping[str, Restart]) -> None:
    """Print the measurements."""
    took = ", ".join(f"{name} {one.stop:.1f}+{one.start:.1f}" for name, one in restarts.items())
    print(f"{load_on.done.total()} requests ({dict(load_on.done)}), {len(load_on.failed)} failed;")
    print(f"connections {balancing.given}, refused {balancing.refused}; seconds to stop + start: {took}")
    print(f"hand-over at most {max(one.handed_over for one in restarts.values()):.2f} s")
