"""Slots of a schedule in its time zone: pure functions of the schedule, the zone and a time.

Both switches of daylight saving time follow cron. A schedule with a fixed hour has one slot for each time that it
names: the first one of an hour that comes twice, and as much after the switch as it was to be after the last second
before it for an hour that does not come. A schedule whose hour begins with `*` follows the clock on the wall: it has
slots in both of two equal hours, and none in an hour that does not come.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter
from croniter.croniter import CroniterError

ALIASES = frozenset({"@midnight", "@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually"})
_FIELD = re.compile(r"[0-9A-Za-z*/,\-#?]+")
_NOT_FIXED = re.compile(r"(^|,)[hr]($|[,/(\-])", re.IGNORECASE)
"""`h` and `r` stand for values that croniter chooses."""
NEAR = timedelta(hours=3)
"""No switch moves a clock by more than this."""
MOST_CHARS = 256


@dataclass(frozen=True, slots=True)
class Schedule:
    """A checked schedule of five fields, six fields (seconds last) or an alias, in an IANA time zone (None: UTC)."""

    text: str
    timezone: str | None = None

    @classmethod
    def parse(cls, text: str, timezone: str | None = None) -> "Schedule":
        """Return the schedule. Raises: ValueError for a schedule or time zone that cannot be read, or has no slot."""
        found = cls(text, timezone)
        zone_of(timezone)
        fields = text.split()
        fits = text.strip().lower() in ALIASES or (
            len(fields) in (5, 6) and all(_FIELD.fullmatch(one) and not _NOT_FIXED.search(one) for one in fields)
        )
        if not fits or len(text) > MOST_CHARS:
            raise ValueError(f"Invalid cron schedule: {text[:100]!r}: expected five or six fields, or an alias")
        try:
            croniter(text, datetime(2000, 1, 1), max_years_between_matches=10).get_next(datetime)  # noqa: DTZ001  # a time of the wall clock
        except (CroniterError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"Invalid cron schedule: {text[:100]!r}: {error}") from None
        return found

    def next_slot(self, after: datetime) -> datetime:
        """Return the first slot after a time, in UTC."""
        zone, after = zone_of(self.timezone), after.astimezone(UTC)
        if self._follows_clock and (near := self._before_switch(after, zone)) is not None:
            return near
        moved = abs(_offset(after + NEAR, zone) - _offset(after - NEAR, zone))
        begin = after.astimezone(zone).replace(tzinfo=None, microsecond=0) - moved
        best: datetime | None = None
        for wall in _walls(self.text, begin):
            if best is not None and wall > best.astimezone(zone).replace(tzinfo=None) + moved:
                break
            found = [one for one in self._instants(wall, zone) if one > after]
            found += [] if best is None else [best]
            best = min(found) if found else None
            if best is not None:
                moved = max(moved, abs(_offset(best + NEAR, zone) - _offset(best - NEAR, zone)))
                if not moved:
                    break
        if best is None:
            raise ValueError(f"Invalid cron schedule: {self.text!r}: no slot after {after}")
        return best

    def slots(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the slots after `after` up to `until` inclusive."""
        slot = self.next_slot(after)
        while slot <= until:
            yield slot
            slot = self.next_slot(slot)

    def _before_switch(self, after: datetime, zone: ZoneInfo) -> datetime | None:
        """Return the next slot of a schedule that follows the clock, if the clock is not switched before it."""
        offset = _offset(after, zone)
        wall = next(_walls(self.text, (after + offset).replace(tzinfo=None)))
        slot = wall.replace(tzinfo=UTC) - offset
        return slot if slot - after < NEAR and _offset(slot, zone) == offset else None

    def _instants(self, wall: datetime, zone: ZoneInfo) -> list[datetime]:
        """Return the times in UTC at which this slot of the wall clock is due: none, one, or two."""
        first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if not self._follows_clock:
            return [first]
        return sorted({one for one in (first, second) if one.astimezone(zone).replace(tzinfo=None, fold=0) == wall})

    @property
    def _follows_clock(self) -> bool:
        fields = self.text.split()
        return self.text.strip().lower() == "@hourly" if len(fields) == 1 else fields[1].startswith("*")


def zone_of(name: str | None) -> ZoneInfo:
    """Return a time zone. Raises: ValueError for an unknown name."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"Invalid timezone: {(name or '')[:100]!r}: expected a name of the IANA database") from None


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()


def _walls(text: str, after: datetime) -> Iterator[datetime]:
    """Yield the times of the wall clock after a time that a schedule names."""
    found = croniter(text, after.replace(fold=0), max_years_between_matches=10)
    while True:
        wall: datetime = found.get_next(datetime)
        yield wall
