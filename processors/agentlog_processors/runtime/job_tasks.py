"""Tasks on a loop for user code: each knows its job, and the code of another job that cancels it is noted."""

import asyncio
from contextvars import Context, ContextVar
from typing import TypeVar

T = TypeVar("T")


class JobOwner:
    """The job behind tasks; `disturbed` tells whether the code of another job has cancelled one of them."""

    def __init__(self, graph_id: str) -> None:
        self.graph_id = graph_id
        self.disturbed = False
        self.root: asyncio.Task[object] | None = None
        """The task of the job itself, which the code of jobs cannot cancel from other tasks: it writes the end."""


_owner: ContextVar[JobOwner | None] = ContextVar("agentlog_job", default=None)


def own_context(owner: JobOwner) -> None:
    """Make the current context that of a job: tasks and callbacks that it starts belong to the job."""
    _owner.set(owner)


class JobTask(asyncio.Task[T]):
    """A task of a job. Code may cancel the tasks of its loop, but that is no fault of the other jobs on it."""

    owner: JobOwner | None = None

    def cancel(self, msg: object = None) -> bool:
        """Cancel the task, unless it is the root of a job and another task of a job calls this."""
        owner, caller = self.owner, _owner.get()
        if owner is not None and caller is not None:
            if caller is not owner:
                owner.disturbed = True
            if self is owner.root and asyncio.current_task() not in (None, self):
                return False
        return super().cancel(msg)


def owned(task: JobTask[T], context: Context | None) -> JobTask[T]:
    """Return a new task after noting to which job its context belongs."""
    task.owner = _owner.get() if context is None else context.get(_owner)
    return task
