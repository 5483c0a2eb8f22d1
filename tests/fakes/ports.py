"""Clock and ids under the control of a test."""

from datetime import UTC, datetime, timedelta


class TestClock:
    """Clock that advances by `step_s` at each reading, so that deadlines pass without waiting."""

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
    """Ids that count up, for readable tests."""

    def __init__(self) -> None:
        self.last = 0

    def uuid7(self) -> str:
        self.last += 1
        return f"00000000-0000-7000-8000-{self.last:012d}"
