"""One attempt of a run, from the queue to its end: read its row, claim it, execute it, end or release it.

If the process dies here: before the claim, the reconciler queues the run again. After it, the reaper releases the
claim, and the next attempt continues from the last accepted checkpoint. A second end is void.
"""

import asyncio
import logging
from dataclasses import replace

from agentlog_commands.claims import End, Release, after_attempt, is_named
from agentlog_commands.command import Accepted
from agentlog_commands.identity import follow_up
from agentlog_commands.runs import ClaimRun, ReleaseRun
from agentlog_commands.threads import thread_stream
from agentlog_facts import guard
from agentlog_facts.errors import Unavailable
from agentlog_facts.execution_port import CANCELLED, AttemptLost, RunAssignment, RunOutcome
from agentlog_facts.frame import Frame
from agentlog_facts.ids import Key, RunId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import RunAlive, RunFinished, RunReleased
from agentlog_processors.runs.dependencies import WorkerDependencies
from agentlog_processors.runs.outcome import last_frames, readable_end
from agentlog_processors.runs.output_fence import fence_off
from agentlog_processors.worker.attempt import Attempt, Stuck
from agentlog_processors.worker.outcome import end_of, finish, state_of
from agentlog_processors.worker.write_outputs import FrameWriter
from agentlog_projections.queries.worker import ExecutableRun
from agentlog_projections.sql.claimable import suspects_of

log = logging.getLogger(__name__)

MOST_DISTURBED = 10
"""Attempts of a run that others may cancel before this counts as a fault of the run."""
RELEASED_BY_OUTAGE = Release("attempt_lost", counts=False)


async def claim(dependencies: WorkerDependencies, run_id: RunId, *, alone: bool = False) -> Attempt | None:
    """Claim a run; return None if it is not ready any more or another claim won.

    A suspect is claimed only if this worker executes it alone; otherwise it goes to its queue. Raises: Unavailable.
    """
    work = await dependencies.queries.work(run_id)
    if work is None or not work.ready or _must_end(work, dependencies):
        log.info("run.dropped", extra={"run_id": run_id, "present": work is not None})
        return None
    if work.deaths and not alone:
        await dependencies.queue.push(suspects_of(work.graph_id), [run_id])
        return None
    event_id = dependencies.writer.ids.uuid7()
    outputs_from = await dependencies.ends.at_most(work.thread_id)
    provenance = dependencies.provenance(work.graph_id) | {"assistant_version": work.assistant.get("version")}
    command = ClaimRun(
        work.thread_id,
        run_id,
        dependencies.worker,
        work.attempt + 1,
        outputs_from,
        provenance,
        dependencies.process,
    )
    cause = dependencies.writer.cause(run_id)
    verdict = await dependencies.writer.commit(Key(work.thread_id), event_id, command.decide(), cause)
    match verdict:
        case guard.Accepted(version=epoch) if epoch == work.version + 1:
            return _new_attempt(work, epoch, event_id)
        case guard.Accepted(version=epoch) | guard.Duplicate(of=epoch):
            return await _reread(dependencies, work, epoch, event_id)
        case guard.Void(reason=reason):
            log.info("run.not_claimed", extra={"run_id": run_id, "reason": reason})
            return None


def _must_end(work: ExecutableRun, dependencies: WorkerDependencies) -> bool:
    """Return whether the housekeeper ends the run: it was lost too often."""
    return work.counted > dependencies.timeouts.limits.retries or is_named(work.deaths)


async def _reread(dependencies: WorkerDependencies, work: ExecutableRun, epoch: int, event_id: str) -> Attempt | None:
    """Read the row again after other commits came before the claim; return None if the claim is lost since.

    The rows contain all these commits by now.
    """
    found = await dependencies.queries.work(work.run_id)
    if found is None or found.epoch != epoch:
        log.info("run.not_claimed", extra={"run_id": work.run_id, "reason": "lost_meanwhile"})
        return None
    return _new_attempt(replace(found, attempt=work.attempt), epoch, event_id)  # the row counts this claim already


def _new_attempt(work: ExecutableRun, epoch: int, event_id: str) -> Attempt:
    attempt = Attempt(work, epoch, event_id)
    log.debug("run.claimed", extra=_fields(attempt))
    return attempt


async def carry_out(dependencies: WorkerDependencies, attempt: Attempt) -> None:
    """Execute a claimed run, then end or release it. Raises: Stuck, Unavailable."""
    if attempt.work.deaths and not await _show_execution(dependencies, attempt):
        return
    outputs = FrameWriter(
        dependencies.outputs, dependencies.bridge, dependencies.writer.clock, attempt.work, attempt.epoch
    )
    flushing = asyncio.create_task(outputs.run(), name="write_frames")
    try:
        order = await _assignment(dependencies, attempt)
        metadata: JsonObject = {"run_id": order.run_id, "attempt": order.attempt}
        await outputs.emit(Frame("metadata", metadata))
        after = await _executed(dependencies, attempt, order, outputs)
        if isinstance(after, RunOutcome):
            after = await _end_run(dependencies, attempt, order, after, outputs, flushing)
        if after is not None:
            await outputs.leave(flushing)
            await _release(dependencies, attempt, after)
    finally:
        flushing.cancel()


async def _show_execution(dependencies: WorkerDependencies, attempt: Attempt) -> bool:
    """Commit that a suspect is executed from now on, so that the next death counts; return whether the claim holds.

    Its worker may die before it renews a lease or writes a checkpoint. Without an answer the claim is released, since
    the log may have accepted the commit, and the end of the claim would count as a death of code that never ran.
    Raises: Unavailable if the log does not answer to the release either; then the reaper may count such a death.
    """
    work = attempt.work
    alive = Accepted(thread_stream(work.thread_id), (RunAlive(work.run_id),), epoch=attempt.epoch)
    try:
        verdict = await _commit(dependencies, attempt, dependencies.writer.ids.uuid7(), alive)
    except Unavailable as error:
        log.warning("run.attempt_lost", extra=_fields(attempt) | {"error": str(error)})
        await _release(dependencies, attempt, RELEASED_BY_OUTAGE)
        return False
    if isinstance(verdict, guard.Void):
        log.info("run.superseded", extra=_fields(attempt) | {"reason": verdict.reason})
        return False
    return True


async def _assignment(dependencies: WorkerDependencies, attempt: Attempt) -> RunAssignment:
    work = attempt.work
    is_retry = attempt.number > 1
    return RunAssignment(
        run_id=work.run_id,
        thread_id=work.thread_id,
        graph_id=work.graph_id,
        epoch=attempt.epoch,
        attempt=attempt.number,
        assistant=work.assistant,
        kwargs=work.kwargs,
        metadata=work.metadata,
        thread_metadata=work.thread_metadata,
        cause=dependencies.writer.cause(work.run_id, attempt.event_id),
        run_version=await dependencies.queries.run_version(work.thread_id, work.run_id) if is_retry else None,
        values=work.values,
        next=work.next,
        has_checkpoints=work.has_checkpoints,
    )


async def _executed(
    dependencies: WorkerDependencies, attempt: Attempt, order: RunAssignment, outputs: FrameWriter
) -> RunOutcome | Release | End | None:
    """Return the outcome, or the action after an attempt without one; None if another worker took over the run.

    An attempt that the code of another run has cancelled is no fault of the run, and does not count. One that fails in
    any other way without an outcome always counts, so that no run is repeated for ever.
    """
    try:
        outcome = await attempt.execute(dependencies, order, outputs)
    except Stuck:
        raise
    except (AttemptLost, Unavailable) as error:
        log.warning("run.attempt_lost", extra=_fields(attempt) | {"error": str(error)})
        return RELEASED_BY_OUTAGE if _is_outage(error) else await _lost(dependencies, attempt, order)
    except Exception:
        log.exception("run.attempt_failed", extra=_fields(attempt))
        return after_attempt("attempt_lost", attempt.work.counted, True, dependencies.timeouts.limits.retries)
    if outcome is None:
        log.info("run.left", extra=_fields(attempt) | {"reason": attempt.stop_reason})
        return Release("drain", counts=False) if attempt.stop_reason == "drain" else None
    if attempt.was_disturbed and (outcome.error or {}).get("error") == CANCELLED:
        log.warning("run.disturbed", extra=_fields(attempt))
        counts = attempt.number > MOST_DISTURBED
        return after_attempt("attempt_lost", attempt.work.counted, counts, dependencies.timeouts.limits.retries)
    return outcome


def _is_outage(error: AttemptLost | Unavailable) -> bool:
    """Return whether log or rows were away; this is no fault of the run, so it costs none of its retries."""
    return isinstance(error, Unavailable) or isinstance(error.__cause__, Unavailable)


async def _lost(dependencies: WorkerDependencies, attempt: Attempt, order: RunAssignment) -> Release | End:
    """Return the action after a failed attempt, which counts unless the log accepted new writes from it."""
    work = attempt.work
    version = await dependencies.queries.run_version(work.thread_id, work.run_id)
    return after_attempt(
        "attempt_lost", work.counted, version == order.run_version, dependencies.timeouts.limits.retries
    )


async def _end_run(
    dependencies: WorkerDependencies,
    attempt: Attempt,
    order: RunAssignment,
    outcome: RunOutcome,
    outputs: FrameWriter,
    flushing: "asyncio.Task[None]",
) -> Release | End | None:
    """Flush the frames, then append the end; return None if the run has ended or belongs to another worker.

    The end demands the version of the thread that the worker read last, at first that of the claim, because the worker
    may not know of a rollback that was accepted since. Each further turn means that another commit came in between.
    """
    event_id = follow_up(attempt.event_id, attempt.epoch)
    asked = end_of(attempt, outcome)
    end, fact = await _final(dependencies, attempt.work, asked, outcome)
    # written once, even if the end changes below
    outputs_to = await outputs.finish(flushing, last_frames(end), event_id)
    version = attempt.epoch
    while True:
        command = finish(attempt, replace(fact, outputs_to=outputs_to), outcome.run_version, version)
        verdict = await _commit(dependencies, attempt, event_id, command.decide())
        match verdict:
            case guard.Accepted() | guard.Duplicate():
                log.info("run.finished", extra=_fields(attempt) | {"status": end.status})
                return None
            case guard.Void(reason="version_conflict", stream=name) if name == thread_stream(attempt.work.thread_id):
                found = await _reread_version(dependencies, attempt)
                if found is None:
                    return None
                version, before, asked = found, asked, end_of(attempt, outcome)
                if asked != before:
                    end, fact = await _final(dependencies, attempt.work, asked, outcome)
            case guard.Void(reason="version_conflict"):  # the last checkpoint is not the one that the saver knows
                log.warning("run.end_after_other_checkpoint", extra=_fields(attempt))
                return await _lost(dependencies, attempt, order)
            case guard.Void(reason=reason):
                log.info("run.superseded", extra=_fields(attempt) | {"reason": reason})
                return None


async def _reread_version(dependencies: WorkerDependencies, attempt: Attempt) -> int | None:
    """Read the row again, note a cancel request, and return the thread's version; None if the claim is lost.

    Raises: Unavailable.
    """
    found = await dependencies.queries.work(attempt.work.run_id)
    if found is None or found.epoch != attempt.epoch:
        log.info("run.superseded", extra=_fields(attempt) | {"reason": "lost_meanwhile"})
        return None
    if found.cancel is not None:
        attempt.request_stop("cancel", found.cancel)
    return found.version


async def _final(
    dependencies: WorkerDependencies, work: ExecutableRun, end: End, outcome: RunOutcome
) -> tuple[End, RunFinished]:
    """Return the end as the log can state it, and its fact without `outputs_to`. Raises: Unavailable."""
    view = await dependencies.final_state.view_without_run(work) if end.rollback else state_of(outcome)
    return readable_end(work, end, view)


async def give_back(dependencies: WorkerDependencies, attempt: Attempt) -> None:
    """Release the claim of a draining worker's attempt that has not begun or does not stop. Raises: Unavailable."""
    await _release(dependencies, attempt, Release("drain", counts=False))


async def _release(dependencies: WorkerDependencies, attempt: Attempt, after: Release | End) -> None:
    """Release the claim; after an `End`, the housekeeper ends the run, as for a lost worker."""
    counts = after.counts if isinstance(after, Release) else True
    work, event_id = attempt.work, follow_up(attempt.event_id, -attempt.epoch - 1)
    decision = ReleaseRun(work.thread_id, RunReleased(work.run_id, attempt.epoch, after.reason, counts)).decide()
    await fence_off(dependencies.outputs, work.thread_id, work.run_id, attempt.epoch, event_id)
    verdict = await _commit(dependencies, attempt, event_id, decision)
    log.info("run.released", extra=_fields(attempt) | {"reason": after.reason, "verdict": type(verdict).__name__})


async def _commit(
    dependencies: WorkerDependencies, attempt: Attempt, event_id: str, decision: Accepted
) -> guard.Verdict:
    cause = dependencies.writer.cause(attempt.work.run_id, attempt.event_id)
    return await dependencies.writer.commit(Key(attempt.work.thread_id), event_id, decision, cause)


def _fields(attempt: Attempt) -> dict[str, object]:
    return {
        "stream": f"thread-{attempt.work.thread_id}",
        "run_id": attempt.work.run_id,
        "epoch": attempt.epoch,
        "attempt": attempt.number,
    }
