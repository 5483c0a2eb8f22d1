"""Release of claims and end of runs in place of their workers: fence off the outputs, release, read the state, finish.

On `events` only a worker writes under its epoch; each commit of this module demands the version of the thread that it
was based on. On `outputs` the module writes one record under the worker's epoch, the fence, after which readers show no
more frames of that epoch. Each step may be repeated, also by two housekeepers at the same time: the event id of a
release follows from run and epoch, that of an end from the run.
"""

import logging
from dataclasses import dataclass, replace
from uuid import uuid5

from agentlog_commands.claims import End, Release, as_asked, worker_died
from agentlog_commands.command import Decision, Refused
from agentlog_commands.identity import NAMESPACE, digest
from agentlog_commands.runs import FinishRun, ReleaseRun
from agentlog_commands.submit import Intent, Outcome, Submitted
from agentlog_facts.errors import Unavailable
from agentlog_facts.frame import FrameRecord
from agentlog_facts.graph_ports import ThreadView
from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_facts.ports import FrameLog
from agentlog_facts.thread import RunReleased
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import CommitWriter, FinalState
from agentlog_processors.runs.outcome import last_frames, readable_end
from agentlog_processors.runs.output_fence import fence_off
from agentlog_projections.queries.worker import ExecutableRun, WorkerQueries

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunFinisher:
    """Releases claims and ends runs for workers that are lost or do not stop."""

    writer: CommitWriter
    queries: WorkerQueries
    outputs: FrameLog
    final_state: FinalState

    async def release(
        self, thread_id: ThreadId, run_id: RunId, epoch: int, released: Release, end: End | None = None
    ) -> bool:
        """Release the claim with this epoch; return whether this call did it. Raises: Unavailable.

        With `end`, no worker can claim the run again: it is ended now, or found later as an unfinished run.
        """

        async def decide() -> Decision:
            work = await self.queries.work(run_id)
            if work is None or work.epoch != epoch:
                return Refused("run_not_active")
            fact = RunReleased(run_id, epoch, released.reason, released.counts)
            stop = None if end is None or work.cancel is not None else end.request(self.writer.clock.now())
            return ReleaseRun(thread_id, fact, version=work.version, stop=stop).decide()

        intent = self._intent(thread_id, run_id, f"release:{epoch}")
        await fence_off(self.outputs, thread_id, run_id, epoch, intent.event_id)
        outcome = await self.writer.submitter.submit(intent, decide, self.writer.deadline(timeouts.VERDICT_WAIT))
        done = _by_us(outcome)
        fields = {"stream": f"thread-{thread_id}", "run_id": run_id, "epoch": epoch}
        log.info("run.released", extra={**fields, "reason": released.reason, "by_us": done})
        return done

    async def finish(self, thread_id: ThreadId, run_id: RunId, end: End) -> bool:
        """End an unclaimed run with the state of its last accepted checkpoint. Raises: Unavailable.

        A cancel that was accepted after the decision for `end`, of either action, replaces it.
        """
        ended = end
        outputs_to = await self._outputs_to(thread_id)

        async def decide() -> Decision:
            nonlocal ended
            work = await self.queries.work(run_id)
            if work is None or not work.active or work.epoch is not None:
                return Refused("run_not_active")
            asked = as_asked(end, work.cancel)
            reading = self.final_state.view_without_run(work) if asked.rollback else self.final_state.view(work)
            view = await reading
            if asked.deaths:
                asked = worker_died(asked.deaths, await self._where(work, view))
            ended, fact = readable_end(work, asked, view)
            fact = replace(fact, outputs_to=outputs_to)
            return FinishRun(thread_id, fact, work.temporary, version=work.version).decide()

        intent = self._intent(thread_id, run_id, "finish")
        outcome = await self.writer.submitter.submit(intent, decide, self.writer.deadline(timeouts.VERDICT_WAIT))
        if _by_us(outcome):
            log.info("run.ended_in_place", extra={"run_id": run_id, "status": ended.status, "reason": ended.reason})
            await self._announce(thread_id, run_id, ended, intent.event_id)
        return _by_us(outcome)

    async def _where(self, work: ExecutableRun, view: ThreadView) -> str:
        """Return what a run executed when its worker died. Raises: Unavailable."""
        if await self.queries.run_version(work.thread_id, work.run_id) is None:
            return f"graph {work.graph_id} before its first checkpoint"
        if not view.next:
            return f"the step of graph {work.graph_id} after checkpoint {view.checkpoint_id}"
        nodes = " and ".join(view.next)
        return f"node{'s' if len(view.next) > 1 else ''} {nodes} of graph {work.graph_id}"

    async def _outputs_to(self, thread_id: ThreadId) -> int | None:
        """Return the end position of the run's flushes; None while `outputs` is away, which delays no end."""
        try:
            return await self.outputs.end(thread_id)
        except Unavailable as error:
            log.warning("outputs.end_unknown", extra={"stream": f"thread-{thread_id}", "error": str(error)})
            return None

    async def _announce(self, thread_id: ThreadId, run_id: RunId, end: End, event_id: str) -> None:
        """Append the end to `outputs` too; readers without it end by the fact."""
        record = FrameRecord(run_id, 0, 0, last_frames(end), end=event_id, of=event_id)
        try:
            await self.outputs.append(thread_id, record)
        except Unavailable as error:
            log.warning("outputs.end_not_written", extra={"run_id": run_id, "error": str(error)})

    def _intent(self, thread_id: ThreadId, run_id: RunId, step: str) -> Intent:
        event_id = str(uuid5(NAMESPACE, f"{run_id}:{step}"))
        cause = self.writer.cause(run_id)
        return Intent(Key(thread_id), event_id, digest(event_id.encode()), cause, serial=True)


def _by_us(outcome: Outcome) -> bool:
    """Return whether the log accepted the commit from this call, not from an earlier one."""
    return isinstance(outcome, Submitted) and not outcome.duplicate
