"""Slots of schedules: both switches of daylight saving time, and every slot once."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings, strategies as st

from agentlog_commands.crons.schedule import Schedule

NEW_YORK = "America/New_York"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "after", "slots"),
    [
        ("30 2 * * *", "2026-03-07T12:00", ["2026-03-08T07:30", "2026-03-09T06:30"]),
        ("30 1 * * *", "2026-10-31T12:00", ["2026-11-01T05:30", "2026-11-02T06:30"]),
        ("0 * * * *", "2026-03-08T05:30", ["2026-03-08T06:00", "2026-03-08T07:00", "2026-03-08T08:00"]),
        ("30 * * * *", "2026-11-01T04:00", ["2026-11-01T04:30", "2026-11-01T05:30", "2026-11-01T06:30"]),
        ("@daily", "2026-07-01T12:00", ["2026-07-02T04:00", "2026-07-03T04:00"]),
        ("* * * * * */20", "2026-07-01T12:00:05", ["2026-07-01T12:00:20", "2026-07-01T12:00:40"]),
    ],
)
def test_slots_in_new_york(schedule: str, after: str, slots: list[str]) -> None:
    found, time = Schedule.parse(schedule, NEW_YORK), at(after)
    for slot in slots:
        time = found.next_slot(time)
        assert time == at(slot)


@pytest.mark.parametrize("text", ["", "x", "* * * *", "60 * * * *", "0 0 30 2 *", "r * * * *", "@reboot", "* " * 7])
def test_a_schedule_that_cannot_be_read_or_has_no_slot_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid cron schedule"):
        Schedule.parse(text)


@pytest.mark.parametrize("name", ["Nowhere/Here", "../etc", "America"])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Invalid timezone"):
        Schedule.parse("@daily", name)


@settings(max_examples=60, deadline=None)
@given(
    text=st.sampled_from(["30 2 * * *", "30 1 * * *", "*/15 * * * *", "0 0 * * *", "15,45 1-3 * * *"]),
    zone=st.sampled_from([NEW_YORK, "Europe/Paris", "Australia/Lord_Howe", "Africa/Cairo", None]),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001  # Hypothesis wants them so
    split=st.integers(1, 72),
)
def test_slots_are_the_same_wherever_the_look_for_them_begins(
    text: str, zone: str | None, start: datetime, split: int
) -> None:
    schedule, begin = Schedule.parse(text, zone), start.replace(tzinfo=UTC)
    middle, end = begin + timedelta(hours=split), begin + timedelta(hours=74)
    whole = list(schedule.slots(begin, end))
    assert whole == sorted(set(whole))
    assert whole == [*schedule.slots(begin, middle), *schedule.slots(middle, end)]
