"""When a worker ends by force: C code in a node holds the interpreter's lock, so that no Python of the process runs.

Nothing written in Python could notice that, neither lease nor signal is served; a thread of `faulthandler` does. Its
supervisor then says that the worker died, and its runs are released at once.
"""

import asyncio
import faulthandler
from datetime import timedelta

from agentlog_processors.runtime.service import pause

SIGNS = 10
"""How many signs of life fall into the time after which silence counts as stuck."""


class WatchTheLock:
    """Ends the process with status 1 once the service loop was silent for `after`; says all stacks on stderr before.

    The clock goes on while the process is stopped by a signal: one that wakes up later than `after` may end too.
    """

    name = "watch_the_lock"

    def __init__(self, after: timedelta) -> None:
        self._after_s = after.total_seconds()

    async def run(self, stop: asyncio.Event) -> None:
        """Give signs of life until stopped."""
        try:
            while not stop.is_set():
                faulthandler.dump_traceback_later(self._after_s, exit=True)
                await pause(stop, self._after_s / SIGNS)
        finally:
            faulthandler.cancel_dump_traceback_later()
