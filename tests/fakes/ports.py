"""Time and identities that a test owns."""

from datetime import UTC, datetime, timedelta


class TestClock:
    """A clock that moves by `step_s` whenever it is read, so that deadlines pass without waiting."""

    __test__ = False

    def __init__(self, step_s: float = 0.0) -> None:
        self.seconds = 0.0
        self.step_s = step_s

    def now(self) -> datetime:
        return datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        self.seconds += self.step_s
        return self.seconds


class CountedIds:
    """Ids that can be read."""

    def __init__(self) -> None:
        self.last = 0

    def uuid7(self) -> str:
        self.last += 1
        return f"00000000-0000-7000-8000-{self.last:012d}"
