"""Restart policy: the delay before each restart of a child, and the limit after which its parent gives up, if any."""

import time
from collections import deque
from collections.abc import Callable

from agentlog_infra import timeouts

LIMIT = 10
_MOST_COUNTED = 20
"""More restarts make no wait longer."""


class RestartBudget:
    """Counts restarts inside a sliding window; waits grow with the count and shrink as the window moves on.

    Without a limit, its child is restarted for ever.
    """

    def __init__(
        self,
        limit: int | None = LIMIT,
        window_secs: float = timeouts.RESTART_WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
        longest_pause_secs: float = timeouts.RESTART_LONGEST_PAUSE_S,
    ) -> None:
        self._limit, self._window_secs, self._clock = limit, window_secs, clock
        self._longest_pause_secs = longest_pause_secs
        self._past: deque[float] = deque(maxlen=_MOST_COUNTED if limit is None else limit + 1)

    def next_delay_secs(self) -> float | None:
        """Count one more restart and return the seconds to wait before it; None once the limit is passed."""
        now = self._clock()
        while self._past and self._past[0] <= now - self._window_secs:
            self._past.popleft()
        if self._limit is not None and len(self._past) >= self._limit:
            return None
        self._past.append(now)
        return float(min(self._longest_pause_secs, timeouts.RESTART_FIRST_PAUSE_S * 2 ** (len(self._past) - 1)))
