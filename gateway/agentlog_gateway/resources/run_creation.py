"""Creation of a run by an HTTP request, on an existing thread or on a new one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from agentlog_commands.command import Decision, Refused
from agentlog_commands.run_request import RunIds
from agentlog_commands.runs import CreateRun, answering
from agentlog_commands.submit import Submitted, Voided
from agentlog_facts.guard import Void
from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_facts.thread import RunCreated, RunState, new_run
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.assistants.run_assistant import assistant_of, usable
from agentlog_gateway.http.errors import INVALID_RUN_TARGET, Problem, invalid
from agentlog_gateway.http.responses import TOKEN_HEADER, run_path
from agentlog_gateway.resources.threads import thread_context
from agentlog_gateway.schemas.run_requests import StatelessRun

TRIES = 3


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run on the log; `done.duplicate` is set if an earlier try of this request created it."""

    done: Submitted
    run: RunCreated

    def headers(self, context: RequestContext, location: str | None = None) -> dict[str, str]:
        """Return headers: the run's path, the path to reconnect to, and the consistency token."""
        path = run_path(self.run.thread_id, self.run.run_id)
        found = {"Content-Location": path, **context.token(self.done)}
        return found if location is None else {**found, "Location": path + location}


@dataclass(frozen=True, slots=True)
class _FirstLook:
    """The thread when a resume arrived: its version, and the runs that answered its interrupts then."""

    version: int
    answering: Sequence[RunState]


class RunCreation:
    """One request to create a run; its ids are known before the first write."""

    def __init__(self, context: RequestContext, body: StatelessRun, thread_id: ThreadId | None) -> None:
        self._context = context
        self.body = body
        self._request = body.request()
        self._stateless = thread_id is None
        self.thread_id = ThreadId(context.new_id("thread")) if thread_id is None else thread_id
        self.run_id = RunId(context.new_id("run"))
        self._first_look: _FirstLook | None = None

    async def create(self) -> NewRun:
        """Create the run. Raises: Problem 400, 404, 409, 422, Unavailable, OutcomeUnknown."""
        request = self._request
        serial = not self._stateless and (request.resumes or request.multitask_strategy != "enqueue")
        if request.resumes and not self._stateless:
            self._first_look = await self._look()
        rejects = request.multitask_strategy == "reject"
        for _ in range(TRIES):
            done = await self._context.submit(
                "CreateRun", self.thread_id, self._decide, serial=serial, conflicts=rejects
            )
            match done:
                case Submitted():
                    context = self._context
                    context.dependencies.announcer.ends(self.thread_id, done, context.identity.event_id)
                    return NewRun(done, next(fact for fact in done.facts if isinstance(fact, RunCreated)))
                case Refused(reason="thread_busy" | "interrupt_answered"):
                    raise Problem(409, done.detail)
                case Refused(reason="context_and_configurable"):
                    raise Problem(400, done.detail)
                case Voided(void=Void(reason="exists" | "gone")):
                    continue  # the thread was created or deleted between read and append: decide again
                case _:
                    break
        raise Problem(404, INVALID_RUN_TARGET)

    async def check(self) -> None:
        """Check the request against assistant and thread, without any write; not if it was accepted before.

        Raises: Problem 400, 404, 422, KeyReused, Unavailable.
        """
        if await self._context.accepted(self.thread_id):
            return
        match await self._decide():
            case Refused(reason="context_and_configurable", detail=detail):
                raise Problem(400, detail)
            case Refused(reason="metadata_too_large", detail=detail):
                raise invalid(detail)
            case Refused():
                raise Problem(404, INVALID_RUN_TARGET)
            case _:
                return

    async def _decide(self) -> Decision:
        """Read thread and assistant in one query, then decide."""
        dependencies, request = self._context.dependencies, self._request
        assistant_id = assistant_of(dependencies, self.body.assistant_id)
        partition = dependencies.log.partition_of(Key(self.thread_id))
        thread, found = await dependencies.contexts.run_target(self.thread_id, partition, assistant_id)
        assistant = await usable(dependencies, assistant_id, found)
        ids, now = RunIds(self.run_id, self.thread_id, self._context.request_id), dependencies.clock.now()
        keys = dependencies.graphs.context_keys(assistant.graph_id)
        created = request.resolve(assistant, thread.metadata, ids, now, dependencies.limits.metadata, keys)
        if isinstance(created, Refused):
            return created
        deadline = now + timedelta(seconds=dependencies.limits.cancel_grace_s)
        rivals = await self._rivals(-1 if thread.version is None else thread.version)
        created = dependencies.secrets.seal_run(await self._with_cause(created))
        code = dependencies.provenance(assistant.graph_id) | {"assistant_version": assistant.version}
        ttl = dependencies.default_ttl
        command = CreateRun(created, deadline, request.new_thread, thread.version, rivals, ttl, code)
        return command.decide(thread.state)

    async def _with_cause(self, run: RunCreated) -> RunCreated:
        """Return the fact with the interrupts that it answers, and what the client had seen.

        The decision on a resume demands the version of the thread, which was read before its interrupts.
        """
        seen = self._context.request.headers.get(TOKEN_HEADER)
        run = replace(run, consistency_token=seen)
        if not self._request.resumes:
            return run
        opened = await self._context.dependencies.contexts.open_interrupts(self.thread_id)
        checkpoint_id = self._request.checkpoint.get("checkpoint_id")
        return replace(run, resumes=opened.answered_by(run, checkpoint_id if isinstance(checkpoint_id, str) else None))

    async def _look(self) -> _FirstLook:
        """Return the thread when this resume arrived, or when its first try with the same key arrived.

        A resume answers the interrupt that was open when it arrived. So this reads the thread before the resume waits
        for earlier commands of the thread: once they are done, another interrupt may be open.
        """
        context = self._context
        found = await thread_context(context, self.thread_id)
        version = -1 if found.version is None else found.version
        if context.identity.keyed:
            tried = await context.dependencies.contexts.first_tried_at(self.thread_id, context.identity.event_id)
            version = version if tried is None else min(version, tried)
        return _FirstLook(version, answering(found.state))

    async def _rivals(self, version: int) -> Sequence[RunState]:
        """Return the runs that answered at the first look and all later ones; none if this run is no resume."""
        first, dependencies = self._first_look, self._context.dependencies
        if first is None:
            return []
        places = (
            await dependencies.contexts.runs_since(self.thread_id, first.version) if version > first.version else []
        )
        commits = [await dependencies.log.read(place) for place in places]
        came = [new_run(fact) for one in commits for fact in one.draft.facts if isinstance(fact, RunCreated)]
        return [*first.answering, *came]
