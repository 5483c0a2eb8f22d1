"""Restart policy: the delay before each restart of a child, and the limit after which its parent gives up."""

import time
from collections import deque
from collections.abc import Callable

LIMIT = 10
WINDOW_SECS = 60.0
_FIRST_DELAY_SECS = 0.1
_LONGEST_DELAY_SECS = 5.0


class RestartBudget:
    """Counts restarts inside a sliding window; waits grow with the count and shrink as the window moves on."""

    def __init__(
        self, limit: int = LIMIT, window_secs: float = WINDOW_SECS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._window_secs, self._clock = limit, window_secs, clock
        self._past: deque[float] = deque(maxlen=limit + 1)

    def next_delay_secs(self) -> float | None:
        """Count one more restart and return the seconds to wait before it; None once the limit is passed."""
        now = self._clock()
        while self._past and self._past[0] <= now - self._window_secs:
            self._past.popleft()
        if len(self._past) >= self._limit:
            return None
        self._past.append(now)
        return float(min(_LONGEST_DELAY_SECS, _FIRST_DELAY_SECS * 2 ** (len(self._past) - 1)))
