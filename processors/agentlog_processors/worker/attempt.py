"""One run from the queue to its end: look at its row, claim it, execute it, end it or give it back.

If we die here: before the claim the reconciler queues the run again; after it the reaper releases the claim and the
next attempt continues from the last accepted checkpoint; a second end is void.
"""

import asyncio
import logging
from dataclasses import replace

from agentlog_commands.claims import End, Release, after_attempt
from agentlog_commands.command import Accepted
from agentlog_commands.identity import follow_up
from agentlog_commands.runs import ClaimRun, ReleaseRun
from agentlog_commands.threads import thread_stream
from agentlog_facts import guard
from agentlog_facts.errors import Unavailable
from agentlog_facts.execution_port import AttemptLost, RunAssignment, RunOutcome
from agentlog_facts.frame import Frame
from agentlog_facts.graph_ports import ThreadView
from agentlog_facts.ids import Key, RunId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import RunReleased
from agentlog_processors.runs.dependencies import WorkerDependencies
from agentlog_processors.runs.outcome import last_frames
from agentlog_processors.runs.output_fence import fence_off
from agentlog_processors.worker.attempt_control import Attempt, Stuck
from agentlog_processors.worker.outcome import end_of, finish, seen
from agentlog_processors.worker.write_outputs import FrameWriter
from agentlog_projections.queries.worker import ExecutableRun

log = logging.getLogger(__name__)

RELEASED_BY_OUTAGE = Release("attempt_lost", counts=False)


async def claim(dependencies: WorkerDependencies, run_id: RunId) -> Attempt | None:
    """Claim a run that is still ready; None when it is not, or when another claim won. Raises: Unavailable."""
    work = await dependencies.queries.work(run_id)
    if work is None or not work.ready or work.counted > dependencies.timeouts.limits.retries:
        log.info("run.dropped", extra={"run_id": run_id, "present": work is not None})
        return None
    event_id = dependencies.writer.ids.uuid7()
    outputs_from = await dependencies.ends.at_most(work.thread_id)
    provenance = dependencies.provenance(work.graph_id) | {"assistant_version": work.assistant.get("version")}
    command = ClaimRun(work.thread_id, run_id, dependencies.worker, work.attempt + 1, outputs_from, provenance)
    cause = dependencies.writer.cause(run_id)
    verdict = await dependencies.writer.commit(Key(work.thread_id), event_id, command.decide(), cause)
    match verdict:
        case guard.Accepted(version=epoch) if epoch == work.version + 1:
            return _begun(work, epoch, event_id)
        case guard.Accepted(version=epoch) | guard.Duplicate(of=epoch):
            return await _looked_again(dependencies, work, epoch, event_id)
        case guard.Void(reason=reason):
            log.info("run.not_claimed", extra={"run_id": run_id, "reason": reason})
            return None


async def _looked_again(
    dependencies: WorkerDependencies, work: ExecutableRun, epoch: int, event_id: str
) -> Attempt | None:
    """Take in what came between the look and the verdict, all of it is projected; None when the claim is gone since."""
    found = await dependencies.queries.work(work.run_id)
    if found is None or found.epoch != epoch:
        log.info("run.not_claimed", extra={"run_id": work.run_id, "reason": "lost_meanwhile"})
        return None
    return _begun(replace(found, attempt=work.attempt), epoch, event_id)  # the row counts this claim already


def _begun(work: ExecutableRun, epoch: int, event_id: str) -> Attempt:
    attempt = Attempt(work, epoch, event_id)
    log.debug("run.claimed", extra=_fields(attempt))
    return attempt


async def carry_out(dependencies: WorkerDependencies, attempt: Attempt) -> None:
    """Execute a claimed run and bring it to its end, or give it back. Raises: Stuck, Unavailable."""
    outputs = FrameWriter(
        dependencies.outputs, dependencies.bridge, dependencies.writer.clock, attempt.work, attempt.epoch
    )
    writing = asyncio.create_task(outputs.run(), name="write_frames")
    try:
        order = await _order(dependencies, attempt)
        metadata: JsonObject = {"run_id": order.run_id, "attempt": order.attempt}
        await outputs.emit(Frame("metadata", metadata))
        after = await _executed(dependencies, attempt, order, outputs)
        if isinstance(after, RunOutcome):
            after = await _finished(dependencies, attempt, order, after, outputs, writing)
        if after is not None:
            await outputs.leave(writing)
            await _given_back(dependencies, attempt, after)
    finally:
        writing.cancel()


async def _order(dependencies: WorkerDependencies, attempt: Attempt) -> RunAssignment:
    work = attempt.work
    again = attempt.number > 1
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
        run_version=await dependencies.queries.run_version(work.thread_id, work.run_id) if again else None,
    )


async def _executed(
    dependencies: WorkerDependencies, attempt: Attempt, order: RunAssignment, outputs: FrameWriter
) -> RunOutcome | Release | End | None:
    """Return the outcome, or what follows from an attempt without one; None when others took the run over."""
    try:
        outcome = await attempt.execute(dependencies, order, outputs)
    except Stuck:
        raise
    except (AttemptLost, Unavailable) as error:
        log.warning("run.attempt_lost", extra=_fields(attempt) | {"error": str(error)})
        return RELEASED_BY_OUTAGE if _was_outage(error) else await _lost(dependencies, attempt, order)
    except Exception:
        log.exception("run.attempt_failed", extra=_fields(attempt))
        return await _lost(dependencies, attempt, order)
    if outcome is None:
        log.info("run.left", extra=_fields(attempt) | {"reason": attempt.asked})
        return Release("drain", counts=False) if attempt.asked == "drain" else None
    return outcome


def _was_outage(error: AttemptLost | Unavailable) -> bool:
    """Tell whether log or rows were away: that says nothing about the run, so it costs none of its retries."""
    return isinstance(error, Unavailable) or isinstance(error.__cause__, Unavailable)


async def _lost(dependencies: WorkerDependencies, attempt: Attempt, order: RunAssignment) -> Release | End:
    """An attempt counts unless the log accepted something new from it."""
    work = attempt.work
    version = await dependencies.queries.run_version(work.thread_id, work.run_id)
    return after_attempt(
        "attempt_lost", work.counted, version == order.run_version, dependencies.timeouts.limits.retries
    )


async def _finished(
    dependencies: WorkerDependencies,
    attempt: Attempt,
    order: RunAssignment,
    outcome: RunOutcome,
    outputs: FrameWriter,
    writing: "asyncio.Task[None]",
) -> Release | End | None:
    """Flush the frames, then append the end; None when the run has its end or is no longer ours.

    The end demands the thread as it was looked at last, the claim at first: of a rollback that was accepted since, the
    worker may not have heard. Each turn more means that a commit of somebody else was accepted in between.
    """
    event_id = follow_up(attempt.event_id, attempt.epoch)
    end = end_of(attempt, outcome)
    outputs_to = await outputs.finish(writing, last_frames(end), event_id)  # said once, whatever the end is by then
    view = await _view(dependencies, attempt.work, end, outcome)
    version = attempt.epoch
    while True:
        command = finish(attempt, end, view, outputs_to, outcome.run_version, version)
        verdict = await _settle(dependencies, attempt, event_id, command.decide())
        match verdict:
            case guard.Accepted() | guard.Duplicate():
                log.info("run.finished", extra=_fields(attempt) | {"status": end.status})
                return None
            case guard.Void(reason="version_conflict", stream=name) if name == thread_stream(attempt.work.thread_id):
                found = await _looked(dependencies, attempt)
                if found is None:
                    return None
                version, before, end = found, end, end_of(attempt, outcome)
                if end != before:
                    view = await _view(dependencies, attempt.work, end, outcome)
            case guard.Void(reason="version_conflict"):  # another last checkpoint than the saver knows of
                log.warning("run.end_behind_checkpoint", extra=_fields(attempt))
                return await _lost(dependencies, attempt, order)
            case guard.Void(reason=reason):
                log.info("run.superseded", extra=_fields(attempt) | {"reason": reason})
                return None


async def _looked(dependencies: WorkerDependencies, attempt: Attempt) -> int | None:
    """Take in what the thread was told meanwhile; return its version, None when the claim is gone.

    Raises: Unavailable.
    """
    found = await dependencies.queries.work(attempt.work.run_id)
    if found is None or found.epoch != attempt.epoch:
        log.info("run.superseded", extra=_fields(attempt) | {"reason": "lost_meanwhile"})
        return None
    if found.cancel is not None:
        attempt.ask("cancel", found.cancel)
    return found.version


async def _view(dependencies: WorkerDependencies, work: ExecutableRun, end: End, outcome: RunOutcome) -> ThreadView:
    if not end.rollback:
        return seen(outcome)
    return await dependencies.views.view_without_run(work)


async def give_back(dependencies: WorkerDependencies, attempt: Attempt) -> None:
    """Release the claim of an attempt that drains and was never begun or does not stop. Raises: Unavailable."""
    await _given_back(dependencies, attempt, Release("drain", counts=False))


async def _given_back(dependencies: WorkerDependencies, attempt: Attempt, after: Release | End) -> None:
    """Release the claim; a run that was given up is then ended by whoever looks first, as for a lost worker."""
    counts = after.counts if isinstance(after, Release) else True
    work, event_id = attempt.work, follow_up(attempt.event_id, -attempt.epoch - 1)
    decision = ReleaseRun(work.thread_id, RunReleased(work.run_id, attempt.epoch, after.reason, counts)).decide()
    await fence_off(dependencies.outputs, work.thread_id, work.run_id, attempt.epoch, event_id)
    verdict = await _settle(dependencies, attempt, event_id, decision)
    log.info("run.released", extra=_fields(attempt) | {"reason": after.reason, "verdict": type(verdict).__name__})


async def _settle(
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
