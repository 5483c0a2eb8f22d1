"""System tests of breakpoints over crashes, and of rollbacks that keep an interrupt open."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.checker.fold import Judged
from tests.system.checker.invariants import Verdicts, epochs
from tests.system.checker.judgement import judged_well, read_settled_queue
from tests.system.checker.notes import Notes
from tests.system.cluster import Cluster, running_cluster
from tests.system.faults_env import lasting
from tests.system.noted import Client, effects
from tests.system.runs_env import Gate, run_status, thread_status
from tests.system.servers import RunningServer, running_server, wait_until

from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_processors import timeouts

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
QUICK = {
    "AGENTLOG_LEASE_TTL_SECS": "1.5",
    "AGENTLOG_CANCEL_GRACE_SECS": "2",
    "N_JOBS_PER_WORKER": "24",
    "BG_JOB_ISOLATED_LOOPS": "true",
}
END_S = 60.0
AWAY_S = timeouts.FINAL_STATE_WAIT.total_seconds() + 5.0
"""The outage of PostgreSQL: longer than a graph may take to return a state."""
RUNS = 20


STEPS = ["one", "two", "three"]


@dataclass(frozen=True)
class Stop:
    """A graph, the request of its run, the node before which it must stop, and the steps before that node."""

    graph: str
    asks: JsonObject
    next: str = "two"
    done: Sequence[str] = ("one",)


STOPS = [
    Stop("breaking", {}),
    Stop("breaking_after", {}),
    Stop("breaking_inside", {}, "inside"),
    Stop("line", {"interrupt_before": ["two"]}),
    Stop("line", {"interrupt_after": ["one"]}),
    Stop("line", {"interrupt_before": ["two"], "durability": "sync"}),
    Stop("line", {"interrupt_before": ["two"], "durability": "exit"}),
    Stop("line", {"interrupt_after": "*"}),
]
CONSENTS = [
    Stop("line", {"interrupt_before": ["two", "three"]}, "three", ("one", "two")),
    Stop("line", {"interrupt_before": ["two", "three"], "durability": "sync"}, "three", ("one", "two")),
    Stop("line", {"interrupt_before": ["two", "three"], "durability": "exit"}, "three", ("one", "two")),
    Stop("line", {"interrupt_after": ["one", "two"]}, "three", ("one", "two")),
    Stop("line", {"interrupt_before": "*"}),
    Stop("line", {"interrupt_after": "*"}, "three", ("one", "two")),
]
"""Runs that continue after a human's consent; the run before had the same request and stopped one node earlier."""


@dataclass(frozen=True)
class BreakpointsEnv:
    """A server and its runs."""

    server: RunningServer | Cluster
    api: Api
    ana: Client

    async def start(self, thread_id: str, graph: str, data: Json, more: JsonObject) -> str:
        """Create a background run and return its id."""
        body: JsonObject = {"assistant_id": graph, "input": data, "stream_resumable": True, **more}
        return str(as_object(await self.ana.change("POST", f"/threads/{thread_id}/runs", body, thread_id))["run_id"])

    async def wait(self, thread_id: str, graph: str, more: JsonObject) -> JsonObject:
        """Execute a run to its end and return its values."""
        body: JsonObject = {"assistant_id": graph, **more}
        return as_object(await self.ana.change("POST", f"/threads/{thread_id}/runs/wait", body, thread_id))

    def hold(self, name: str) -> Path:
        """Delay every reading of the state of this name."""
        path = self.server.gates / f"hold-{name}"
        path.touch()
        return path

    def held(self, name: str) -> bool:
        """Return whether a reading is delayed."""
        return (self.server.gates / f"held-{name}").exists()

    def started(self, name: str) -> list[str]:
        """Return the steps that were started under a name."""
        return [line["step"] for line in self.server.steps() if (line["name"], line["edge"]) == (name, "start")]

    async def log(self) -> list[Judged]:
        """Return the judged log, which must be without violations."""
        return (await judged_well(self.server.kafka, self.server.postgres, ended=False))[0]

    async def judged(self, threads: Iterable[str], streamed: Iterable[tuple[str, str]] = ()) -> Verdicts:
        """Run the checker over the whole log and all records of these threads and streams of (thread, run)."""
        notes = self.ana.notes
        notes.shown = [await self.ana.show(thread_id) for thread_id in threads]
        notes.streams = {run_id: await self.ana.stream(thread_id, run_id) for thread_id, run_id in streamed}
        notes.effects = effects(self.server.steps())
        notes.queued = await read_settled_queue(self.server.kafka, self.server.redis)
        return (await judged_well(self.server.kafka, self.server.postgres, notes))[1]


@dataclass(frozen=True)
class Killable(BreakpointsEnv):
    """A server under one supervisor, whose processes tests may kill."""

    server: RunningServer


@pytest.fixture(scope="module")
def here() -> Generator[Killable]:
    """Yield a server whose processes the tests kill, one test after the other."""
    with running_server(QUICK, GRAPHS) as server:
        yield Killable(server, Api(server.url), Client(server.url, "ana", Notes()))


def kill_worker(server: RunningServer) -> None:
    server.kill_role("worker")


def kill_everything(server: RunningServer) -> None:
    server.kill_everything()
    server.start()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kill", [kill_worker, pytest.param(kill_everything, marks=pytest.mark.full)])
async def test_no_attempt_passes_the_breakpoint_at_which_the_one_before_was_killed(
    here: Killable, kill: Callable[[RunningServer], None]
) -> None:
    names = [uuid4().hex for _ in STOPS]
    threads = [await here.ana.thread() for _ in STOPS]
    runs = await killed_at_their_stops(here, STOPS, names, threads, kill, [{"name": name} for name in names])
    for stop, name, thread_id in zip(STOPS, names, threads, strict=True):
        await check_continues(here, stop, name, thread_id)
    await here.judged(threads, zip(threads, runs, strict=True))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kill", [kill_worker, pytest.param(kill_everything, marks=pytest.mark.full)])
async def test_no_attempt_passes_the_next_breakpoint_of_a_run_that_was_itself_the_consent(
    here: Killable, kill: Callable[[RunningServer], None]
) -> None:
    names = [uuid4().hex for _ in CONSENTS]
    threads = [await here.ana.thread() for _ in CONSENTS]
    for stop, name, thread_id in zip(CONSENTS, names, threads, strict=True):
        await here.wait(thread_id, stop.graph, {"input": {"name": name}, **stop.asks})
        assert here.started(name) == [*stop.done[:-1]], f"{stop}: a run before it stops one node earlier"
    runs = await killed_at_their_stops(here, CONSENTS, names, threads, kill, [None] * len(names))
    for stop, name, thread_id in zip(CONSENTS, names, threads, strict=True):
        await check_continues(here, stop, name, thread_id)
    await here.judged(threads, zip(threads, runs, strict=True))


async def killed_at_their_stops(
    here: Killable,
    stops: Sequence[Stop],
    names: Sequence[str],
    threads: Sequence[str],
    kill: Callable[[RunningServer], None],
    inputs: Sequence[Json],
) -> list[str]:
    """Kill while each run is at its stop without an end; return the runs, which stop there again."""
    holds = [here.hold(name) for name in names]
    runs = [
        await here.start(thread_id, stop.graph, data, {"stream_mode": ["custom"], **stop.asks})
        for stop, thread_id, data in zip(stops, threads, inputs, strict=True)
    ]
    await until(lambda: all(here.held(name) for name in names), within_secs=END_S)  # before any end
    _, found = await judged_well(here.server.kafka, here.server.postgres, ended=False)
    assert [found.runs[run_id] for run_id in runs] == [""] * len(runs)
    await asyncio.to_thread(kill, here.server)
    for hold in holds:
        hold.unlink()
    for stop, name, thread_id, run_id in zip(stops, names, threads, runs, strict=True):
        await check_stopped(here, stop, name, thread_id, run_id)
    claims = epochs(await here.log())
    assert all(len(claims[run_id]) >= 2 for run_id in runs), "the kill hit nothing"
    return runs


async def check_stopped(here: BreakpointsEnv, stop: Stop, name: str, thread_id: str, run_id: str) -> None:
    """Check that a run has ended at its breakpoint, and that no later node was executed."""
    async with asyncio.timeout(END_S):
        await here.api.join(thread_id, run_id)
    assert set(here.started(name)) == set(stop.done), f"{stop}: {here.started(name)}"
    assert await run_status(here.api, thread_id, run_id) == "success", stop
    assert await thread_status(here.api, thread_id) == "interrupted", stop
    assert (await here.api.get(f"/threads/{thread_id}/state"))["next"] == [stop.next], stop


async def check_continues(here: BreakpointsEnv, stop: Stop, name: str, thread_id: str) -> None:
    """Consent as a human and check that the remaining steps run once each."""
    rest = STEPS[len(stop.done) :]
    values = await here.wait(thread_id, stop.graph, {"input": None})
    assert values["done"] == STEPS, stop
    assert here.started(name)[-len(rest) :] == rest, stop


@pytest.mark.timeout(900)
async def test_no_run_passes_its_breakpoint_whenever_its_worker_is_killed(here: Killable, full: bool) -> None:
    hit = 0
    for number in range(15 if full else 1):
        name = uuid4().hex
        threads = [await here.ana.thread() for _ in range(RUNS)]
        asked: JsonObject = {"interrupt_before": ["two"]}
        starting = asyncio.gather(*(here.start(one, "line", {"name": name}, asked) for one in threads))
        at = 1 + number * 7 % RUNS
        kill = kill_everything if number % 5 == 4 else kill_worker  # a new supervisor counts restarts from 0
        if kill is kill_everything:  # else they may still come while the worker dies
            await starting
        await asyncio.to_thread(wait_until, lambda: len(here.started(name)) >= at, END_S, "some have begun")  # noqa: B023 - waited for here
        await asyncio.to_thread(kill, here.server)
        runs = await starting
        async with asyncio.timeout(END_S):
            await asyncio.gather(*map(here.api.join, threads, runs))
        assert set(here.started(name)) == {"one"}
        assert {await thread_status(here.api, thread_id) for thread_id in threads} == {"interrupted"}
        found = await here.judged(threads, [*zip(threads, runs, strict=True)][::4])
        assert {found.runs[run_id] for run_id in runs} == {"success"}
        hit += sum(found.attempts[run_id] > 1 for run_id in runs)
    assert hit > 0, "the kills hit nothing"


@dataclass
class Question:
    """A thread with an interrupt, its state then, and a run that resumes it."""

    thread_id: str
    name: str
    gate: Gate
    before: list[Json]
    run_id: str


async def shown(here: BreakpointsEnv, thread_id: str) -> list[Json]:
    """Return all fields of a thread's state."""
    thread = await here.api.get(f"/threads/{thread_id}")
    return [
        await here.api.call("GET", f"/threads/{thread_id}/state?subgraphs=true"),
        await here.api.call("GET", f"/threads/{thread_id}/history?limit=100"),
        {name: thread[name] for name in ("values", "interrupts", "status", "error")},
    ]


async def answering(here: BreakpointsEnv) -> Question:
    """Run a thread up to its interrupt, and a run that resumes it up to the gate after it."""
    thread_id, gate = await here.ana.thread(), Gate(here.server)
    await here.wait(thread_id, "asking", {"input": {"gate": gate.name, "name": gate.name}})
    before = await shown(here, thread_id)
    run_id = await here.start(thread_id, "asking", None, {"command": {"resume": "yes"}, "stream_mode": ["custom"]})
    await until(lambda: gate.began(here.server, "between"), within_secs=END_S)
    assert await shown(here, thread_id) != before, "the answer left nothing that a rollback could take back"
    return Question(thread_id, gate.name, gate, before, run_id)


async def check_unchanged(here: BreakpointsEnv, question: Question) -> None:
    """Check that the thread is as before the resume, without traces of the run, and can be resumed again."""
    connection = await asyncpg.connect(here.server.postgres)
    try:
        await until(lambda: _gone(here, question, connection), within_secs=END_S)
        assert await shown(here, question.thread_id) == question.before
        for table in ("checkpoints", "writes"):
            left = f"SELECT count(*) FROM read_v1.{table} WHERE run_id = $1 AND NOT hidden"
            assert await connection.fetchval(left, question.run_id) == 0, table
    finally:
        await connection.close()
    question.gate.open()
    values = await here.wait(question.thread_id, "asking", {"command": {"resume": "other"}})
    assert values["answers"] == ["first other"]


async def _gone(here: BreakpointsEnv, question: Question, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Return whether the run has ended; clients see it as gone since the request."""
    if not await connection.fetchval("SELECT deleted FROM read_v1.runs WHERE run_id = $1", question.run_id):
        return False
    status, _ = await here.api.raw("GET", f"/threads/{question.thread_id}/runs/{question.run_id}")
    return status == 404 and await thread_status(here.api, question.thread_id) != "busy"


async def rolled_back(here: BreakpointsEnv, question: Question) -> None:
    """Request the rollback."""
    path = f"/threads/{question.thread_id}/runs/{question.run_id}/cancel?action=rollback"
    await here.ana.change("POST", path, {}, question.thread_id)


@pytest.mark.timeout(240)
async def test_a_rolled_back_answer_leaves_its_question_open_over_every_kill(here: Killable, full: bool) -> None:
    question = await answering(here)
    asked = [question]
    await rolled_back(here, question)
    await check_unchanged(here, question)

    question = await answering(here)  # the worker dies before it gets the hint of the rollback
    asked.append(question)
    [worker] = here.server.pids("agentlog_processors", "worker")
    os.kill(worker, signal.SIGSTOP)
    await rolled_back(here, question)
    os.kill(worker, signal.SIGKILL)
    await check_unchanged(here, question)

    # between the stop of the run and its end
    for kill in (kill_worker, kill_everything) if full else (kill_everything,):
        question = await answering(here)
        asked.append(question)
        hold = here.hold(question.name)
        await rolled_back(here, question)
        await until(lambda: here.held(question.name), within_secs=END_S)  # noqa: B023 - waited for here
        await asyncio.to_thread(kill, here.server)
        hold.unlink()
        await check_unchanged(here, question)
    found = await here.judged([one.thread_id for one in asked])
    assert {found.runs[one.run_id] for one in asked} == {"rollback"}


@pytest.mark.timeout(240)
async def test_a_rolled_back_answer_leaves_its_question_open_when_postgresql_was_away_at_its_end() -> None:
    patient = {"AGENTLOG_CANCEL_GRACE_SECS": "60", "AGENTLOG_CONFIG": str(GRAPHS)}  # its worker has to end it
    with running_cluster(QUICK | patient, workers=1) as cluster:
        here = BreakpointsEnv(cluster, Api(cluster.url), Client(cluster.url, "ana", Notes()))
        question = await answering(here)
        hold = here.hold(question.name)
        await rolled_back(here, question)
        await until(lambda: here.held(question.name), within_secs=END_S)
        await asyncio.to_thread(cluster.hold, "postgres")
        hold.unlink()
        await lasting(AWAY_S)
        await asyncio.to_thread(cluster.bring_back, "postgres")
        await check_unchanged(here, question)
        ends = [
            (data["status"], one.epoch is not None)
            for one in await here.log()
            for kind, data in one.facts
            if one.verdict == "accepted" and kind == "RunFinished" and data["run_id"] == question.run_id
        ]
        assert ends == [("rollback", True)], "its worker took it back"
        await here.judged([question.thread_id])


@pytest.mark.timeout(240)
async def test_a_rollback_behind_the_last_checkpoint_of_a_run_takes_it_back(here: Killable, full: bool) -> None:
    asked: dict[str, str] = {}
    [valkey] = [pid for pid, command in here.server.family().items() if "valkey-server" in command]
    for number in range(20 if full else 6):
        thread_id, name = await here.ana.thread(), uuid4().hex
        await here.wait(thread_id, "line", {"input": {"name": f"{name}-before"}})
        hold = here.hold(name)
        run_id = await here.start(thread_id, "line", {"name": name}, {"stream_mode": ["custom"]})
        await until(lambda: here.held(name), within_secs=END_S)  # noqa: B023 - waited for here
        asked[run_id] = thread_id
        os.kill(valkey, signal.SIGSTOP)  # so that the worker gets no hint at once
        try:
            if number % 2:
                other: JsonObject = {"multitask_strategy": "rollback", "stream_mode": ["custom"]}
                after = await here.start(thread_id, "line", {"name": f"{name}-after"}, other)
            else:
                after = ""
                path = f"/threads/{thread_id}/runs/{run_id}/cancel?action=rollback"
                await here.ana.change("POST", path, {}, thread_id)
            hold.unlink()
            await until(lambda: _ended(here, run_id), within_secs=END_S)  # noqa: B023 - waited for here
        finally:
            os.kill(valkey, signal.SIGCONT)
        if after:
            assert (await here.api.join(thread_id, after))["done"] == STEPS * 2
        values = as_object((await here.api.get(f"/threads/{thread_id}"))["values"])
        assert values["done"] == (STEPS * 2 if after else STEPS)
    late = asked_behind_their_last_checkpoint(await here.log())
    found = await here.judged(asked.values())
    assert {found.runs[run_id] for run_id in asked} == {"rollback"}
    print(f"{len(asked)} rollbacks accepted, {len(late & asked.keys())} behind the last checkpoint of their run")
    assert late >= asked.keys()


async def _ended(here: BreakpointsEnv, run_id: str) -> bool:
    """Return whether the run has ended; clients see its rollback since the request."""
    connection = await asyncpg.connect(here.server.postgres)
    try:
        return bool(await connection.fetchval("SELECT status <> 'running' FROM read_v1.runs WHERE run_id = $1", run_id))
    finally:
        await connection.close()


def asked_behind_their_last_checkpoint(judged: Iterable[Judged]) -> set[str]:
    """Return the runs of `line` with a cancel request after all of their steps were on the log."""
    saved: Counter[str] = Counter()
    found: set[str] = set()
    for one in judged:
        for kind, data in one.facts if one.verdict == "accepted" else ():
            saved[str(data.get("run_id"))] += kind == "CheckpointSaved"
            if kind == "RunCancelRequested" and saved[str(data["run_id"])] == len(STEPS) + 2:
                found.add(str(data["run_id"]))
    return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize("stopped", [False, True])
async def test_an_answer_in_place_of_another_meets_the_question_as_it_was(here: Killable, stopped: bool) -> None:
    question = await answering(here)
    [worker] = here.server.pids("agentlog_processors", "worker")
    if stopped:
        os.kill(worker, signal.SIGSTOP)
    other: JsonObject = {"command": {"resume": "other"}, "multitask_strategy": "rollback"}
    run_id = await here.start(question.thread_id, "asking", None, other)
    if stopped:
        os.kill(worker, signal.SIGKILL)
    question.gate.open()
    async with asyncio.timeout(END_S):
        values = await here.api.join(question.thread_id, run_id)
    assert values["answers"] == ["first other"]
    path = f"/threads/{question.thread_id}/runs/{question.run_id}"
    assert (await here.api.raw("GET", path))[0] == 404
    found = await here.judged([question.thread_id], [(question.thread_id, run_id)])
    assert (found.runs[question.run_id], found.runs[run_id]) == ("rollback", "success")
