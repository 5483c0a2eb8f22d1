"""Roles of the product as simulated processes: their own code over ports of the simulation."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import TypeVar

from tests.fakes.memory_command_contexts import MemoryCommandContexts
from tests.fakes.memory_rows import MemoryRows
from tests.fakes.memory_worker_queries import MemoryWorkerQueries
from tests.simulation.fake_log import START, Broker, SimFrames, SimLog, SimTail
from tests.simulation.fake_postgres import Postgres
from tests.simulation.fake_redis import Redis, SimFeed
from tests.simulation.fake_sql import understand
from tests.simulation.loop import Process, SimLoop, passes
from tests.simulation.network import Network
from tests.simulation.read_rows import read_rows

from agentlog_commands.claims import ClaimLimits
from agentlog_commands.identity import digest
from agentlog_commands.submit import Submitter
from agentlog_facts.checkpoint import CheckpointSaved
from agentlog_facts.envelope import Actor, Draft
from agentlog_facts.errors import Unavailable
from agentlog_facts.execution_port import AttemptLost, Emit, RunAssignment, RunOutcome
from agentlog_facts.frame import Frame
from agentlog_facts.graph_ports import ThreadView
from agentlog_facts.ids import Key, RunId, Stream, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_infra.redis.verdicts import HintVerdicts
from agentlog_postgres.connection import Pool
from agentlog_processors import timeouts
from agentlog_processors.housekeeper.finish_runs import RunFinisher
from agentlog_processors.housekeeper.reap_runs import ReapRuns
from agentlog_processors.housekeeper.reconcile_queue import ReconcileQueue
from agentlog_processors.runs.dependencies import CommitWriter, WorkerDependencies, WorkerTimeouts
from agentlog_processors.runs.output_offsets import CachedEndOffsets
from agentlog_processors.runtime.loop_bridge import LoopBridge
from agentlog_processors.runtime.service import Endless, Service, supervise
from agentlog_processors.runtime.user_loops import JobLoop, JobLoops
from agentlog_processors.worker.attempt import Attempt
from agentlog_processors.worker.execute_runs import ExecuteRuns
from agentlog_processors.worker.watch_claims import WatchClaims
from agentlog_projections.models.runs import RunsModel
from agentlog_projections.models.threads import ThreadsModel
from agentlog_projections.projector.announcer import Announcer
from agentlog_projections.projector.ledger import Ledger
from agentlog_projections.projector.projector import Projector
from agentlog_projections.projector.session import FoldPorts, FoldSettings
from agentlog_projections.queries.command_context import CommandContexts
from agentlog_projections.queries.worker import ExecutableRun, WorkerQueries
from agentlog_projections.sql.caught_up import open_rows
from agentlog_projections.sql.read_model import ReadModel

T = TypeVar("T")
GRAPH = "agent"
SECOND = timedelta(seconds=1)
TIMING = WorkerTimeouts(
    jobs=2,
    lease_ttl=2 * SECOND,
    lease_renew=0.5 * SECOND,
    look=SECOND,
    reconcile=5 * SECOND,
    grace=2 * SECOND,
    limits=ClaimLimits(lost_after=2 * SECOND, run_time=2 * timeouts.VERDICT_WAIT, retries=3, cancel_grace=2 * SECOND),
    pop=SECOND,
    alive=2 * SECOND,
    suspects_after=2 * SECOND,
)
"""Short times; but a run has more time than its worker waits for one lost record (`VERDICT_WAIT`), so it can end."""


class Broken(Exception):
    """The exception of a run that breaks its attempt."""


@dataclass(frozen=True)
class Clock:
    """The clock of a process; its wall clock may be wrong."""

    loop: SimLoop
    skew_s: float

    def now(self) -> datetime:
        return START + timedelta(seconds=self.loop.time() + self.skew_s)

    def monotonic(self) -> float:
        return self.loop.time()


class Ids:
    """Ids in the same order for the same seed."""

    def __init__(self) -> None:
        self._last = count(1)

    def uuid7(self) -> str:
        return f"00000000-0000-7000-8000-{next(self._last):012x}"


@dataclass
class SimulationEnv:
    """State that all processes share: servers, ids, randomness, and the external effects of runs."""

    loop: SimLoop
    chance: Random
    network: Network
    broker: Broker
    postgres: Postgres
    redis: Redis
    ids: Ids = field(default_factory=Ids)
    executed: list[tuple[RunId, int, int]] = field(default_factory=list[tuple[RunId, int, int]])
    failures: list[str] = field(default_factory=list[str])
    uri: str = "postgresql://simulated/live"

    def __post_init__(self) -> None:
        self.anew = Postgres(self.network, understand)

    def postgres_of(self, uri: str) -> Postgres:
        """Return the server of an address."""
        return self.postgres if uri.endswith("/live") else self.anew

    def folding_anew(self) -> "SimulationEnv":
        """Return the same environment with the address of empty rows."""
        return replace(self, uri="postgresql://simulated/anew", redis=Redis(self.network))

    def clock(self, process: Process) -> Clock:
        return Clock(self.loop, process.skew_s)


class SimJobLoop(JobLoop):
    """Runs jobs on the simulation's only loop."""

    def __init__(self, loop: SimLoop) -> None:
        self.active = 0
        self._loop = loop

    def ping(self) -> None:
        """Do nothing: this loop always answers."""

    @property
    def silent_s(self) -> float:
        return 0.0


class SimJobLoops(JobLoops):
    """Has one loop, which is never blocked."""

    def __init__(self, loop: SimLoop) -> None:
        super().__init__(loop, lambda: loop)
        self._only = SimJobLoop(loop)

    def _pick(self, graph_id: str, blocked: JobLoop | None = None) -> JobLoop:
        return self._only


@dataclass
class Wiring:
    """Ports of every process but a projector: writer, reads and hints."""

    env: SimulationEnv
    process: Process
    pool: Pool
    ledger: Ledger
    verdicts: HintVerdicts
    log: SimLog
    feed: SimFeed
    clock: Clock

    def writer(self, actor: Actor) -> CommitWriter:
        submitter = Submitter(self.log, self.verdicts, self.ledger, self.clock, self.env.ids)
        return CommitWriter(submitter, self.log, self.clock, self.env.ids, actor)

    def queries(self) -> WorkerQueries:
        return MemoryWorkerQueries(self._ask)

    def contexts(self) -> CommandContexts:
        return MemoryCommandContexts(self._ask)

    async def _ask(self, question: Callable[[MemoryRows], T], /) -> T:
        postgres = self.env.postgres_of(self.env.uri)

        def shown() -> MemoryRows:
            postgres.demand_no_reverted_rows()
            return read_rows(postgres)

        return question(await self.env.network.call(postgres.server, shown, Unavailable))


@asynccontextmanager
async def wired(env: SimulationEnv, process: Process) -> AsyncGenerator[Wiring]:
    """Return the ports of a process."""
    pool = await open_rows(env.uri, 4)
    ledger, feed, clock = Ledger(pool), SimFeed(env.redis), env.clock(process)
    verdicts = HintVerdicts(feed, ledger, clock)
    await verdicts.start()
    try:
        yield Wiring(env, process, pool, ledger, verdicts, SimLog(env.broker), feed, clock)
    finally:
        await verdicts.stop()


class Execution:
    """Implements `execution_port.RunExecution` without LangGraph: saves each step on the run's stream.

    The input of a run has `steps`, and `fails` (the user's code raises) or `breaks` (the worker's code raises).
    """

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._env = wiring.env

    async def execute(self, order: RunAssignment, emit: Emit, stop: asyncio.Event) -> RunOutcome:
        steps, version = order.kwargs["steps"], order.run_version
        assert isinstance(steps, int)
        while (0 if version is None else version + 1) < steps:
            step = 0 if version is None else version + 1
            self._env.executed.append((order.run_id, order.epoch, step))
            await passes(self._env.chance.random() ** 3 * 2.0)
            emitted = emit(Frame("updates", {"step": step}))
            if emitted is not None:
                await emitted
            if stop.is_set():
                return RunOutcome("interrupted", None, {"seen": step}, ("rest",), {}, None, version)
            if order.kwargs.get("breaks") and self._env.chance.random() < 0.3:
                raise Broken("the worker's own code failed")
            version = await self._save(order, step, version)
        if order.kwargs.get("fails"):
            error: JsonObject = {"error": "ValueError", "message": "as asked"}
            return RunOutcome("error", error, {"seen": steps}, (), {}, None, version)
        return RunOutcome("success", None, {"seen": steps}, (), {}, None, version)

    async def _save(self, order: RunAssignment, step: int, version: int | None) -> int:
        stream = Stream(f"run-{order.run_id}")
        fact = CheckpointSaved(order.thread_id, order.run_id, "", f"{order.run_id}-{step}", None, {}, {}, ())
        event_id = self._env.ids.uuid7()
        draft = Draft(
            key=Key(order.thread_id),
            stream=stream,
            event_id=event_id,
            append_id=self._env.ids.uuid7(),
            body_sha256=digest(event_id.encode()),
            facts=(fact,),
            occurred_at=self._wiring.clock.now(),
            cause=order.cause,
            demands={stream: "absent" if version is None else version},
            epoch=order.epoch,
        )
        try:
            await self._wiring.log.append(draft)
        except Unavailable as error:
            raise AttemptLost(f"checkpoint {step} may be lost") from error
        return step


class FinalStates:
    """Implements `dependencies.FinalState`: the state of a thread is the number of its saved steps."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    async def view(self, work: ExecutableRun) -> ThreadView:
        return ThreadView({"seen": await self._saved(work.thread_id, "")}, ("rest",), {}, None)

    async def view_without_run(self, work: ExecutableRun) -> ThreadView:
        return ThreadView({"seen": await self._saved(work.thread_id, f"run-{work.run_id}")}, (), {}, None)

    async def _saved(self, thread_id: ThreadId, without: str) -> int:
        env = self._wiring.env

        def counted() -> int:
            rows = [row for row in env.postgres.tables["ledger.log_index"].values() if row["key"] == thread_id]
            accepted = [row for row in rows if row["verdict"] == "accepted" and row["stream"] != without]
            return sum(str(row["stream"]).startswith("run-") for row in accepted)

        return await env.network.call(env.postgres.server, counted, Unavailable)


async def worker(env: SimulationEnv, process: Process) -> None:
    """Run a worker."""
    async with wired(env, process) as wiring:
        home, frames = env.loop, SimFrames(env.broker)
        dependencies = WorkerDependencies(
            worker=process.name,
            writer=wiring.writer(Actor("worker", process.name)),
            queries=wiring.queries(),
            queue=wiring.feed,
            outputs=frames,
            ends=CachedEndOffsets(frames, env.broker.partition_of, wiring.clock),
            execution=Execution(wiring),
            graph_ids=(GRAPH,),
            final_state=FinalStates(wiring),
            provenance=lambda graph_id: {"graph_id": graph_id},
            hints=wiring.verdicts,
            loops=SimJobLoops(home),
            bridge=LoopBridge(home),
            timeouts=TIMING,
        )
        active: dict[RunId, Attempt] = {}
        await _served([ExecuteRuns(dependencies, active), WatchClaims(dependencies, active)])


async def housekeeper(env: SimulationEnv, process: Process) -> None:
    """Run a housekeeper."""
    async with wired(env, process) as wiring:
        writer = wiring.writer(Actor("system", "housekeeper"))
        finisher = RunFinisher(writer, wiring.queries(), SimFrames(env.broker), FinalStates(wiring))
        await _served(
            [
                ReapRuns(finisher, wiring.feed, wiring.feed, TIMING),
                ReconcileQueue(wiring.queries(), wiring.feed, TIMING),
            ]
        )


async def projector(env: SimulationEnv, process: Process) -> None:
    """Run a projector."""
    feed = SimFeed(env.redis)
    announcer = Announcer(feed, feed)
    ports = FoldPorts(SimTail(env.broker), env.broker.partition_of, env.clock(process), announcer)
    folding = Projector(fold_settings(env.uri, process.name), ports, *models())
    await _served([Endless("projector", folding.run), Endless("announcer", announcer.run)])


def fold_settings(uri: str, owner: str) -> FoldSettings:
    """Return the settings of the simulated projectors."""
    settings = FoldSettings(uri, owner, patience=0.5 * SECOND, look_every=0.5 * SECOND)
    return replace(settings, lease=2 * SECOND) if hasattr(settings, "lease") else settings


def models() -> tuple[Sequence[ReadModel], RunsModel]:
    """Return the read models that the simulated roles need."""
    runs = RunsModel()
    return (ThreadsModel(), runs), runs


async def _served(services: Sequence[Service]) -> None:
    await supervise(services, asyncio.Event(), SECOND)


Living = Callable[[SimulationEnv, Process], Coroutine[object, object, None]]
ROLES: dict[str, Living] = {"projector": projector, "worker": worker, "housekeeper": housekeeper}
