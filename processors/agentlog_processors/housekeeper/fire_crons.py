"""Firing of crons: each due slot gets one run, also with several housekeepers, and after a death at any step.

The slot is decided on the stream of the cron (`CronFired`), then its run is created on its thread, then the firing ends
(`CronFiringEnded`). If the process dies between: the next pass of any housekeeper goes on. Two at the same time do no
harm: the ids of all three commits follow from the cron and the slot, so each counts once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from agentlog_commands.command import Decision, Refused
from agentlog_commands.crons.cron import DeleteCron, EndFiring, FireCron, derived, run_request
from agentlog_commands.identity import digest, follow_up
from agentlog_commands.metadata_limit import DEFAULT, MetadataLimit
from agentlog_commands.run_request import RunIds
from agentlog_commands.runs import CreateRun
from agentlog_commands.submit import Intent, Outcome, Submitted
from agentlog_facts.cron import CronFired, CronState
from agentlog_facts.envelope import Cause, Delegation
from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_facts.ids import CronId, Key
from agentlog_facts.json_value import JsonObject
from agentlog_facts.secret_values import Secrets
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import CommitWriter
from agentlog_processors.runtime.service import pause
from agentlog_projections.models.crons.fold import CronRow
from agentlog_projections.models.crons.model import Crons
from agentlog_projections.queries.command_context import CommandContexts

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Most crons that fire at the same time."""
LIMIT = 1_000
"""Most crons of one pass."""


@dataclass(frozen=True, slots=True)
class CronRuns:
    """What the runs of crons need: rows, secrets, and settings, as for runs over HTTP."""

    crons: Crons
    contexts: CommandContexts
    secrets: Secrets
    cancel_grace: timedelta
    default_ttl: JsonObject | None = None
    limit: MetadataLimit = DEFAULT


class FireCrons:
    """Fires crons that are due by the writer's clock, and deletes those whose thread is deleted."""

    name = "fire_crons"

    def __init__(self, runs: CronRuns, writer: CommitWriter, every: timedelta = timeouts.CRON_LOOK) -> None:
        self._runs = runs
        self._writer = writer
        self._every_s = every.total_seconds()

    async def run(self, stop: asyncio.Event) -> None:
        """Fire until stopped; after an outage, try again in the next pass."""
        while not stop.is_set():
            try:
                await self.look()
            except Unavailable as error:
                log.warning("crons.unavailable", extra={"error": str(error)})
            await pause(stop, self._every_s)

    async def look(self) -> int:
        """Fire what is due, once; return how many slots got their run. Raises: Unavailable."""
        crons = self._runs.crons
        due = await crons.due(self._writer.clock.now(), LIMIT)
        orphans = await crons.orphans(LIMIT)
        fired = await self._each(due, self._fire)
        await self._each(orphans, self._delete)
        return fired

    async def _each(self, found: Sequence[CronId], do: Callable[[CronId], Awaitable[bool]]) -> int:
        """Do something to crons, some at a time; a failure does not delay other crons."""

        async def one(cron_id: CronId) -> bool:
            try:
                return await do(cron_id)
            except AgentlogError as error:
                log.warning("cron.failed", extra={"stream": f"cron-{cron_id}", "error": str(error)})
                return False

        done = 0
        for start in range(0, len(found), AT_ONCE):
            done += sum(await asyncio.gather(*map(one, found[start : start + AT_ONCE])))
        return done

    async def _fire(self, cron_id: CronId) -> bool:
        """Finish the firing that is open, or begin and finish the next one."""
        row = await self._runs.crons.row(cron_id)
        if row is None:
            return False
        if row.firing is not None and row.fired is not None:
            return await self._finish(row, row.fired, str(row.firing["event_id"]))
        slot = row.next_run_date
        if slot is None:
            return False

        async def decide() -> Decision:
            found = await self._runs.crons.row(cron_id)
            if found is None or found.next_run_date != slot:  # another housekeeper was here
                return Refused("nothing_to_do")
            return FireCron(cron_id, self._writer.clock.now()).decide(found.state, found.revision)

        event_id = derived(cron_id, slot, "firing")
        done = await self._submit(Key(cron_id), event_id, decide, self._cause(row))
        facts = done.facts if isinstance(done, Submitted) else ()
        fired = next((fact for fact in facts if isinstance(fact, CronFired)), None)
        return False if fired is None else await self._finish(row, fired, event_id)

    async def _finish(self, row: CronRow, fired: CronFired, event_id: str) -> bool:
        """Create the run of a slot, and tell the outcome; return whether it has a run."""
        refusal = await self._create_run(row, fired, event_id)

        async def decide() -> Decision:
            found = await self._runs.crons.row(row.cron_id)
            state = CronState() if found is None else found.state
            return EndFiring(fired, refusal).decide(state, None if found is None else found.revision)

        await self._submit(Key(row.cron_id), follow_up(event_id, "ended"), decide, self._cause(row, event_id))
        extra = {"stream": f"cron-{row.cron_id}", "slot": fired.slot.isoformat(), "run_id": fired.run_id}
        log.info("cron.fired", extra={**extra, "refusal": refusal})
        return refusal is None

    async def _create_run(self, row: CronRow, fired: CronFired, event_id: str) -> str | None:
        """Create the run, unless it was created before; return why it was refused. Raises: Unavailable."""
        runs, writer = self._runs, self._writer
        cause = self._cause(row, event_id)
        partition = writer.log.partition_of(Key(fired.thread_id))
        payload, _ = runs.secrets.open_kwargs(row.payload, row.cron_id)
        request = run_request(replace(row, payload=payload))

        async def decide() -> Decision:
            thread, assistant = await runs.contexts.run_target(fired.thread_id, partition, row.assistant_id)
            if assistant is None:
                return Refused("assistant_not_found")
            owner, now = assistant.assistant_id, writer.clock.now()
            config, context = runs.secrets.open_settings(assistant.config, assistant.context, owner)
            used = replace(assistant, config=config, context=context)
            ids = RunIds(fired.run_id, fired.thread_id, cause.correlation_id)
            created = request.resolve(used, thread.metadata, ids, now, runs.limit)
            if isinstance(created, Refused):
                return created
            command = CreateRun(
                runs.secrets.seal_run(created),
                now + runs.cancel_grace,
                request.new_thread,
                thread.version,
                ttl=runs.default_ttl,
                provenance={"assistant_version": assistant.version},
            )
            return command.decide(thread.state)

        done = await self._submit(Key(fired.thread_id), follow_up(event_id, "run"), decide, cause)
        match done:
            case Submitted():
                return None
            case Refused():
                return done.reason
            case _:  # the thread was created or deleted between read and append: the next pass decides again
                raise Unavailable(f"thread {fired.thread_id}: {done.void.reason}")

    async def _delete(self, cron_id: CronId) -> bool:
        """Delete a cron whose thread is deleted."""

        async def decide() -> Decision:
            row = await self._runs.crons.row(cron_id)
            state = CronState() if row is None else row.state
            return DeleteCron(cron_id).decide(state, None if row is None else row.revision)

        event_id = self._writer.ids.uuid7()
        cause = self._writer.cause(event_id)
        return isinstance(await self._submit(Key(cron_id), event_id, decide, cause), Submitted)

    async def _submit(
        self, key: Key, event_id: str, decide: Callable[[], Awaitable[Decision]], cause: Cause
    ) -> Outcome:
        intent = Intent(key, event_id, digest(event_id.encode()), cause, keyed=True, serial=True)
        return await self._writer.submitter.submit(intent, decide, self._writer.deadline(timeouts.VERDICT_WAIT))

    def _cause(self, row: CronRow, causation_id: str | None = None) -> Cause:
        """Return the cause of a firing: this process, on behalf of the creator of the cron."""
        cause = self._writer.cause(self._writer.ids.uuid7(), causation_id)
        issuer = row.creator.get("iss")
        step = Delegation(str(row.creator.get("sub")), cause.actor.sub, str(issuer) if issuer else None)
        return replace(cause, on_behalf_of=(step,))
