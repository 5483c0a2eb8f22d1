"""Watchdog for the GIL: ends the process when C code in a node holds the GIL, so that no Python code can run.

Then the process serves neither leases nor signals. No Python code can notice it, but the C thread of `faulthandler`
can. The supervisor then announces the worker as dead, and its runs are released at once.
"""

import asyncio
import faulthandler
from datetime import timedelta

from agentlog_processors.runtime.service import pause

HEARTBEATS = 10
"""Heartbeats within the time after which the process counts as stuck."""


class GilWatchdog:
    """Ends the process with status 1 after the service loop hung for `after`; first prints all stacks on stderr.

    The clock continues while a signal has stopped the process: one that continues later than `after` may end too.
    """

    name = "watch_the_lock"

    def __init__(self, after: timedelta) -> None:
        self._after_s = after.total_seconds()

    async def run(self, stop: asyncio.Event) -> None:
        """Send heartbeats until stopped."""
        try:
            while not stop.is_set():
                faulthandler.dump_traceback_later(self._after_s, exit=True)
                await pause(stop, self._after_s / HEARTBEATS)
        finally:
            faulthandler.cancel_dump_traceback_later()
