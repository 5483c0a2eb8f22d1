"""Fence record on `outputs` that ends an epoch for readers, before the claim is released.

Later frames of a worker that was only paused, or does not stop, come after the fence and are never shown.
"""

import asyncio
import logging

from agentlog_facts.errors import Unavailable
from agentlog_facts.frame import FrameRecord
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.ports import FrameLog
from agentlog_processors import timeouts

log = logging.getLogger(__name__)


async def fence_off(outputs: FrameLog, thread_id: ThreadId, run_id: RunId, epoch: int, release: str) -> None:
    """Append a fence; `release` is the event id of the `RunReleased` that is appended next."""
    try:
        async with asyncio.timeout(timeouts.OUTPUT_FENCE_S):
            await outputs.append(thread_id, FrameRecord(run_id, epoch, 0, (), release=release))
    except (Unavailable, TimeoutError) as error:
        log.warning("outputs.not_fenced_off", extra={"run_id": run_id, "epoch": epoch, "error": repr(error)})
