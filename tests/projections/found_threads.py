"""Search of threads with defaults, for tests that ask what the rows show."""

from collections.abc import Sequence

from agentlog_facts.json_value import load_object
from agentlog_projections.models.threads import SortBy, ThreadFilter, Threads, ThreadText

LONGEST = 1024 * 1024


async def found_threads(
    threads: Threads,
    where: ThreadFilter | None = None,
    *,
    sort_by: SortBy = "thread_id",
    limit: int = 10,
    offset: int = 0,
) -> Sequence[ThreadText]:
    """Return matching threads with their values, in ascending order."""
    return await threads.search(
        where or ThreadFilter(),
        sort_by=sort_by,
        descending=False,
        limit=limit,
        offset=offset,
        with_values=True,
        longest=LONGEST,
    )


async def found_ids(threads: Threads, where: ThreadFilter | None = None) -> Sequence[str]:
    """Return the ids of matching threads, in ascending order."""
    return [one.thread.thread_id for one in await found_threads(threads, where)]


def values_of(one: ThreadText) -> object:
    """Return the values of a thread that was found."""
    return None if one.values is None else load_object(one.values)
