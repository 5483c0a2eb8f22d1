"""Progress of a rebuild on stderr: one line that is redrawn on a terminal, else a line every ten seconds."""

import sys
import time
from dataclasses import dataclass, field

from agentlog_processors import timeouts


@dataclass(slots=True)
class Progress:
    """Count, rate and time left. `seen` is the number of folded events at the last report."""

    terminal: bool = field(default_factory=lambda: sys.stderr.isatty())
    seen: int = 0
    started: float = field(default_factory=time.monotonic)
    next_line: float = 0.0

    def begin(self, total: int, partitions: int) -> None:
        """Print the total."""
        self.note(f"rebuild: {total} events in {partitions} partitions")

    def show(self, seen: int, total: int) -> None:
        """Print count, rate and time left, at most once per interval."""
        self.seen = seen
        now = time.monotonic()
        if now < self.next_line:
            return
        interval_s = timeouts.PROGRESS_REDRAW_S if self.terminal else timeouts.PROGRESS_LINE_S
        first, self.next_line = self.next_line == 0, now + interval_s
        if first and not self.terminal:
            return
        rate = seen / max(now - self.started, 0.001)
        left = max(0, total - seen) / max(rate, 1)
        line = f"rebuild: {seen} of {total} events, {rate:.0f}/s, {left:.0f} s left"
        sys.stderr.write(f"\r\x1b[K{line}" if self.terminal else f"{line}\n")
        sys.stderr.flush()

    def note(self, line: str) -> None:
        """Print one line."""
        sys.stderr.write(f"\r\x1b[K{line}\n" if self.terminal else f"{line}\n")
        sys.stderr.flush()

    def finish(self) -> None:
        """Print the total number, time and rate."""
        length = max(time.monotonic() - self.started, 0.001)
        self.note(f"rebuilt {self.seen} events in {length:.1f} s, {self.seen / length:.0f}/s")
