"""Decides how a run comes to be, on a thread or with a thread of its own, and what its creator is refused."""

import asyncio
from dataclasses import dataclass

from agentlog_commands.command import Decision, Refused
from agentlog_commands.runs import CreateRun
from agentlog_commands.submit import Submitted, Voided
from agentlog_facts.guard import Void
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import RunCreated, ThreadState
from agentlog_gateway.assistants import assistant_of, run_assistant
from agentlog_gateway.call import Call
from agentlog_gateway.errors import INVALID_RUN_TARGET, Problem
from agentlog_gateway.replies import run_path
from agentlog_gateway.run_orders import RunOrderForm
from agentlog_gateway.threads import thread_decision
from agentlog_gateway.wire_runs import StatelessRun, ThreadRun

TRIES = 3


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that is on the log; `done.duplicate` when this request had created it before."""

    done: Submitted
    run: RunCreated

    def headers(self, call: Call, location: str | None = None) -> dict[str, str]:
        """Return where the run is, where to reconnect, and the consistency token."""
        path = run_path(self.run.thread_id, self.run.run_id)
        found = {"Content-Location": path, **call.token(self.done)}
        return found if location is None else {**found, "Location": path + location}


class RunCreation:
    """One request to create a run; ids are known before anything is written."""

    def __init__(self, call: Call, body: StatelessRun, thread_id: ThreadId | None) -> None:
        self._call = call
        self.body = body
        self._stateless = thread_id is None
        self.thread_id = ThreadId(call.new_id("thread")) if thread_id is None else thread_id
        self.run_id = RunId(call.new_id("run"))
        self._form: RunOrderForm | None = None

    async def create(self) -> NewRun:
        """Create the run. Raises: Problem 400, 404, 409, 422, Unavailable, OutcomeUnknown."""
        serial = self.body.multitask_strategy == "reject" and not self._stateless
        for _ in range(TRIES):
            done = await self._call.submit(self.thread_id, self._decide, serial=serial)
            match done:
                case Submitted():
                    return NewRun(done, next(fact for fact in done.facts if isinstance(fact, RunCreated)))
                case Refused(reason="thread_busy"):
                    await self._call.record_refusal(self.thread_id, "CreateRun", done.reason)
                    raise Problem(409, done.detail)
                case Voided(void=Void(reason="exists" | "gone")):
                    continue  # the thread came or went between our look and our append: decide by what is there now
                case _:
                    break
        raise Problem(404, INVALID_RUN_TARGET)

    async def _decide(self) -> Decision:
        if self._stateless:
            await self._call.services.presence.require(self.thread_id)
            created = (await self._filled()).created({})
            return CreateRun(created, self.body.metadata).decide(ThreadState())
        form, found = await asyncio.gather(self._filled(), thread_decision(self._call, self.thread_id))
        return CreateRun(form.created(found.metadata), self._new_thread(), found.version).decide(found.state)

    def _new_thread(self) -> JsonObject | None:
        body = self.body
        return body.metadata if isinstance(body, ThreadRun) and body.if_not_exists == "create" else None

    async def _filled(self) -> RunOrderForm:
        if self._form is None:
            services = self._call.services
            assistant = await run_assistant(services, assistant_of(services, self.body.assistant_id))
            temporary = self._stateless and self.body.on_completion == "delete"
            now = services.clock.now()
            self._form = RunOrderForm(
                self.body, self.run_id, self.thread_id, assistant, self._call.request_id, now, temporary
            )
        return self._form
