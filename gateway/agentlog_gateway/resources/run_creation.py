"""Decides how a run comes to be, on a thread or with a thread of its own, and what its creator is refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from agentlog_commands.command import Decision, Refused
from agentlog_commands.runs import CreateRun, answering
from agentlog_commands.submit import Submitted, Voided
from agentlog_facts.guard import Void
from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import RunCreated, RunState, new_run
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.errors import INVALID_RUN_TARGET, Problem
from agentlog_gateway.http.responses import run_path
from agentlog_gateway.resources.assistants import assistant_of, usable
from agentlog_gateway.resources.threads import thread_context
from agentlog_gateway.schemas.run_requests import StatelessRun, ThreadRun
from agentlog_gateway.schemas.run_snapshot import RunRequest

TRIES = 3


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that is on the log; `done.duplicate` when this request had created it before."""

    done: Submitted
    run: RunCreated

    def headers(self, context: RequestContext, location: str | None = None) -> dict[str, str]:
        """Return where the run is, where to reconnect, and the consistency token."""
        path = run_path(self.run.thread_id, self.run.run_id)
        found = {"Content-Location": path, **context.token(self.done)}
        return found if location is None else {**found, "Location": path + location}


@dataclass(frozen=True, slots=True)
class _FirstLook:
    """The thread as an answer first met it: its version, and the runs that were answering."""

    version: int
    answering: Sequence[RunState]


class RunCreation:
    """One request to create a run; ids are known before anything is written."""

    def __init__(self, context: RequestContext, body: StatelessRun, thread_id: ThreadId | None) -> None:
        self._context = context
        self.body = body
        self._stateless = thread_id is None
        self.thread_id = ThreadId(context.new_id("thread")) if thread_id is None else thread_id
        self.run_id = RunId(context.new_id("run"))
        self._first_look: _FirstLook | None = None

    async def create(self) -> NewRun:
        """Create the run. Raises: Problem 400, 404, 409, 422, Unavailable, OutcomeUnknown."""
        resumes = self.body.command is not None and self.body.command.resume is not None
        serial = not self._stateless and (resumes or self.body.multitask_strategy != "enqueue")
        if resumes and not self._stateless:
            self._first_look = await self._look()
        rejects = self.body.multitask_strategy == "reject"
        for _ in range(TRIES):
            done = await self._context.submit(
                "CreateRun", self.thread_id, self._decide, serial=serial, conflicts=rejects
            )
            match done:
                case Submitted():
                    return NewRun(done, next(fact for fact in done.facts if isinstance(fact, RunCreated)))
                case Refused(reason="thread_busy" | "interrupt_answered"):
                    raise Problem(409, done.detail)
                case Voided(void=Void(reason="exists" | "gone")):
                    continue  # the thread came or went between our look and our append: decide by what is there now
                case _:
                    break
        raise Problem(404, INVALID_RUN_TARGET)

    async def _decide(self) -> Decision:
        """One question for thread and assistant, then the decision."""
        dependencies, body = self._context.dependencies, self.body
        assistant_id = assistant_of(dependencies, body.assistant_id)
        partition = dependencies.log.partition_of(Key(self.thread_id))
        thread, assistant = await dependencies.contexts.run_target(self.thread_id, partition, assistant_id)
        form = RunRequest(
            body=body,
            run_id=self.run_id,
            thread_id=self.thread_id,
            assistant=await usable(dependencies, assistant_id, assistant),
            request_id=self._context.request_id,
            now=dependencies.clock.now(),
            temporary=self._stateless and body.on_completion == "delete",
        )
        deadline = form.now + timedelta(seconds=dependencies.limits.cancel_grace_s)
        created = form.created(thread.metadata)
        rivals = await self._rivals(-1 if thread.version is None else thread.version)
        return CreateRun(created, deadline, self._new_thread(), thread.version, rivals).decide(thread.state)

    async def _look(self) -> _FirstLook:
        """Return what an answer is for: what was open when it came here, or when it was first tried with its key.

        Before its turn: commands before this one may take so long that another interrupt is open when they are done.
        """
        context = self._context
        found = await thread_context(context, self.thread_id)
        version = -1 if found.version is None else found.version
        if context.identity.keyed:
            tried = await context.dependencies.contexts.first_tried_at(self.thread_id, context.identity.event_id)
            version = version if tried is None else min(version, tried)
        return _FirstLook(version, answering(found.state))

    async def _rivals(self, version: int) -> Sequence[RunState]:
        """Return the runs that were answering at the first look, and all that came since; none for other runs."""
        first, dependencies = self._first_look, self._context.dependencies
        if first is None:
            return []
        places = (
            await dependencies.contexts.runs_since(self.thread_id, first.version) if version > first.version else []
        )
        commits = [await dependencies.log.read(place) for place in places]
        came = [new_run(fact) for one in commits for fact in one.draft.facts if isinstance(fact, RunCreated)]
        return [*first.answering, *came]

    def _new_thread(self) -> JsonObject | None:
        """Return the metadata of the thread that is to be made where it is missing."""
        body = self.body
        makes = self._stateless or (isinstance(body, ThreadRun) and body.if_not_exists == "create")
        return body.metadata if makes else None
