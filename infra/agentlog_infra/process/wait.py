"""Concurrent waits: the first one to end cancels the others, and its error is raised."""

import asyncio
from collections.abc import Coroutine


async def first_to_end(*waits: Coroutine[object, object, object]) -> None:
    """Run all until the first returns or raises, cancel the rest, raise the first error (never a group of them)."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()
