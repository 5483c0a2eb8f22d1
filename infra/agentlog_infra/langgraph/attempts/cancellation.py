"""Cancellation of the tasks of an attempt, and of a task that goes on after user code has cancelled it."""

import asyncio


def is_being_cancelled() -> bool:
    """Return whether the current task has a cancel request that it has not forgotten."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def forget_cancellation() -> None:
    """Let the task of this attempt go on after user code has cancelled it."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


async def cancel_and_wait(work: "asyncio.Task[None]") -> None:
    """Cancel user code and wait until it has ended, also while this task itself is being cancelled.

    It cancels once only: after a second cancel LangGraph returns while nodes still run.
    """
    cancelled: asyncio.CancelledError | None = None
    if not work.done():
        work.cancel()
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
