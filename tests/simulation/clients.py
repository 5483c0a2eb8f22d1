"""Simulated clients and gateways: requests with and without keys, retries, races, and a record of every answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal

from tests.simulation.loop import Process, passes
from tests.simulation.roles import GRAPH, TIMING, SimulationEnv, Wiring, wired

from agentlog_commands.command import Decision, Refused
from agentlog_commands.identity import Identity, digest, identify
from agentlog_commands.runs import CancelRun, CreateRun
from agentlog_commands.submit import Intent, Outcome, Submitted, Submitter, Voided
from agentlog_commands.threads import CreateThread, DeleteThread, PatchThread
from agentlog_facts.envelope import ANONYMOUS, Cause
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_facts.json_value import JsonObject, dump
from agentlog_facts.thread import RunCreated

Kind = Literal["thread", "run", "patch", "cancel", "delete"]
DEADLINE_S = 4.0
TRIES = 40
"""The most tries of a client with the same key; the faults are over long before."""


@dataclass(frozen=True)
class Request:
    """The request of a client; `key` is its Idempotency-Key."""

    kind: Kind
    thread_id: ThreadId
    body: JsonObject
    key: str | None = None
    run_id: RunId | None = None


@dataclass(frozen=True)
class Answer:
    """The answer of a gateway: `outcome` or a fault. `event_id` is that of the intent on the log."""

    request: Request
    event_id: str
    outcome: Outcome | None
    fault: str = ""


@dataclass
class Notes:
    """All observations; `wrong` lists violations that were seen at once."""

    answers: list[Answer] = field(default_factory=list[Answer])
    unanswered: list[Request] = field(default_factory=list[Request])
    created: dict[RunId, ThreadId] = field(default_factory=dict[RunId, ThreadId])
    wrong: list[str] = field(default_factory=list[str])


class Hangup(Exception):
    """The gateway died during a request."""


class Gateway:
    """Serves requests with the product's deciders and its `Submitter`, as the routes do."""

    def __init__(self, env: SimulationEnv, notes: Notes, process: Process) -> None:
        self.process = process
        self._env = env
        self._notes = notes
        self._wiring: Wiring | None = None
        self._submitter: Submitter | None = None

    async def live(self, env: SimulationEnv, process: Process) -> None:
        """Run until killed."""
        async with wired(env, process) as wiring:
            self._wiring, self._submitter = wiring, wiring.writer(ANONYMOUS).submitter
            await asyncio.Event().wait()

    async def serve(self, request: Request) -> Answer:
        """Execute a request and record the answer."""
        ids, path = self._env.ids, f"/{request.thread_id}/{request.run_id}"
        identity = identify(ANONYMOUS, request.kind, path, request.key, ids)
        try:
            outcome = await self._carried_out(request, identity)
        except Exception as error:  # noqa: BLE001 - the answer names it, and the oracle knows which are allowed
            answer = Answer(request, identity.event_id, None, type(error).__name__)
        else:
            answer = Answer(request, identity.event_id, outcome)
            if isinstance(outcome, Submitted):
                self._look(request, outcome)
        self._notes.answers.append(answer)
        told = answer.fault or type(answer.outcome).__name__
        self._env.network.note(self.process.name, request.kind, request.key, told)
        return answer

    def _look(self, request: Request, done: Submitted) -> None:
        """Check that a successful answer's commit is accepted in the rows at this moment, if they can be read."""
        self._env.postgres.told.add((done.place.partition, done.place.offset))
        try:
            self._env.postgres.demand_no_reverted_rows()
        except Unavailable:
            return
        row = self._env.postgres.tables["ledger.log_index"].get((done.place.partition, done.place.offset))
        found = None if row is None else (row["verdict"], row["version"])
        if found != ("accepted", done.version):
            self._notes.wrong.append(f"{request} was answered version {done.version}, the rows have {found}")
        if request.kind == "run":
            for fact in done.facts:
                if isinstance(fact, RunCreated):
                    self._notes.created[fact.run_id] = fact.thread_id

    async def _carried_out(self, request: Request, identity: Identity) -> Outcome:
        if self._wiring is None or self._submitter is None:
            raise Unavailable("the gateway is starting")
        wiring, submitter = self._wiring, self._submitter
        run_id = RunId(identity.derived("run", self._env.ids))
        partition = self._env.broker.partition_of(Key(request.thread_id))
        now = wiring.clock.now()
        stop_at = now + TIMING.limits.cancel_grace

        async def decide() -> Decision:
            if request.kind == "thread":
                return CreateThread(request.thread_id, request.body).decide()
            found = await wiring.contexts().thread(request.thread_id, partition)
            match request.kind:
                case "patch":
                    patch = PatchThread(request.thread_id, request.body)
                    return patch.decide(found.state, found.metadata, found.meta_version)
                case "delete":
                    return DeleteThread(request.thread_id, found.version or 0, found.meta_version).decide(found.state)
                case "cancel":
                    if found.version is None or request.run_id is None:
                        return Refused("thread_not_found")
                    action: Literal["interrupt", "rollback"] = "rollback" if request.body["rollback"] else "interrupt"
                    error: JsonObject = {"error": "UserInterrupt", "message": "asked"}
                    command = CancelRun(request.thread_id, request.run_id, action, error, stop_at, found.version)
                    return command.decide(found.state)
                case _:
                    after = request.body.get("after")
                    due = now + timedelta(seconds=after) if isinstance(after, float) else None
                    created = RunCreated(
                        run_id=run_id,
                        thread_id=request.thread_id,
                        assistant={"assistant_id": GRAPH, "graph_id": GRAPH, "version": 1},
                        metadata={},
                        kwargs=request.body,
                        multitask_strategy=str(request.body["strategy"]),
                        due_at=due,
                    )
                    creates: JsonObject | None = {} if request.body["creates"] else None
                    return CreateRun(created, stop_at, creates, found.version).decide(found.state)

        intent = Intent(
            Key(request.thread_id),
            identity.event_id,
            digest(dump(request.body)),
            Cause(ANONYMOUS, "request"),
            keyed=identity.keyed,
            serial=request.kind in ("cancel", "delete") or request.body.get("strategy") not in (None, "enqueue"),
        )
        deadline = wiring.clock.monotonic() + DEADLINE_S
        outcome = await submitter.submit(intent, decide, deadline)
        if request.kind == "run" and isinstance(outcome, Voided) and outcome.void.reason in ("exists", "gone"):
            outcome = await submitter.submit(intent, decide, deadline)  # the thread changed: decide again
        return outcome


class Client:
    """Sends requests in sequence; it repeats a request with a key until it has an answer."""

    def __init__(
        self, env: SimulationEnv, notes: Notes, gateways: Callable[[], list[Gateway]], process: Process
    ) -> None:
        self._env = env
        self._notes = notes
        self._gateways = gateways
        self._process = process

    async def ask_all(self, requests: list[Request], pace_s: float) -> None:
        """Send all requests in turn; repeat some of them in parallel."""
        chance = self._env.chance
        for number, request in enumerate(requests):
            await passes(pace_s * chance.random())
            asked = self._aimed(request)
            asking = [self.ask(asked)]
            if asked.key is not None and chance.random() < 0.25:
                other = asked if chance.random() < 0.8 else replace(asked, body={**asked.body, "other": number})
                asking.append(self.ask(other))
            await asyncio.gather(*asking)

    def _aimed(self, request: Request) -> Request:
        """Aim a cancel at a run that some client created."""
        if request.kind != "cancel":
            return request
        known = [run_id for run_id, thread_id in self._notes.created.items() if thread_id == request.thread_id]
        return replace(
            request, run_id=known[-1 - int(self._env.chance.random() * min(3, len(known)))] if known else None
        )

    async def ask(self, request: Request) -> None:
        """Send a request until it is answered, or once if it has no key."""
        for _ in range(TRIES):
            try:
                answer = await self._asked(request)
            except Hangup:
                answer = None
            final = answer is not None and answer.fault not in ("Unavailable", "OutcomeUnknown", "Contended")
            if final or request.key is None:
                return
            await passes(0.2 + self._env.chance.random())
        self._notes.unanswered.append(request)

    async def _asked(self, request: Request) -> Answer:
        """Send the request to a random gateway. Raises: Hangup."""
        env, answered = self._env, self._env.loop.create_future()
        gateways = self._gateways()
        gateway = gateways[int(env.chance.random() * len(gateways))]

        def hang_up() -> None:
            if not answered.done():
                answered.set_exception(Hangup())

        def told(task: "asyncio.Task[Answer]") -> None:
            if not answered.done() and not task.cancelled():
                answered.set_result(task.result())

        def arrive() -> None:
            if not gateway.process.alive:
                hang_up()
                return
            gateway.process.on_death.append(lambda: env.network.later(env.network.delay_s(), hang_up))
            serving = env.loop.start(gateway.process, gateway.serve(request))
            serving.add_done_callback(told)

        env.network.later(env.network.delay_s(), arrive)
        answer: Answer = await answered
        return answer


def draw_requests(env: SimulationEnv, threads: list[ThreadId], name: str, most: int) -> list[Request]:
    """Draw the requests of a client."""
    chance = env.chance
    found: list[Request] = []
    for number in range(1 + int(chance.random() * most)):
        thread_id = threads[int(chance.random() * len(threads))]
        key = f"{name}-{number}" if chance.random() < 0.65 else None
        found.append(_wish(env, thread_id, key))
    return found


def _wish(env: SimulationEnv, thread_id: ThreadId, key: str | None) -> Request:
    chance = env.chance
    drawn = chance.random()
    if drawn < 0.12:
        return Request("thread", thread_id, {"made": "by hand"}, key)
    if drawn < 0.25:
        return Request("patch", thread_id, {"mark": chance.random()}, key)
    if drawn < 0.37:
        return Request("cancel", thread_id, {"rollback": chance.random() < 0.3}, key)
    if drawn < 0.40:
        return Request("delete", thread_id, {}, key)
    strategies = ("enqueue", "enqueue", "enqueue", "reject", "interrupt", "rollback")
    body: JsonObject = {
        "steps": int(chance.random() * 4),
        "fails": chance.random() < 0.1,
        "breaks": chance.random() < 0.1,
        "strategy": strategies[int(chance.random() * len(strategies))],
        "creates": chance.random() < 0.9,
        "after": chance.random() * 2 if chance.random() < 0.1 else None,
    }
    return Request("run", thread_id, body, key)
