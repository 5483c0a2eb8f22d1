"""Tests of whole days from many seeds: after deaths, pauses and losses, every day ends without a violation."""

from random import Random

import pytest
from tests.simulation.loop import Deadlock, Process, SimLoop, passes
from tests.simulation.nemesis import HARMS
from tests.simulation.oracle import executions
from tests.simulation.runs import ROOT, Line, begun, lines, told
from tests.simulation.simulation import simulate
from tests.system.checker.fold import Judged
from tests.system.checker.records import Record, Value

DAYS = 2_000
DAYS_FULL = 20_000
PROCESSES = 2
EFFECTS = {
    "died at a call": 0.15,
    "a run began again": 0.15,
    "the broker lost records": 0.05,
    "postgres took commits back": 0.015,
    "redis lost something": 0.05,
    "cut off from broker": 0.05,
    "cut off from postgres": 0.1,
    "cut off from redis": 0.04,
}
"""The least effects of each fault per day: about half of the observed number."""
VERDICTS = {
    "accepted": 5.0,
    "duplicate": 0.5,
    "exists": 0.5,
    "version_conflict": 0.2,
    "not_pending": 0.1,
    "idempotency_key_reused": 0.1,
    "stale_epoch": 0.05,
    "no_such_run": 0.05,
    "gone": 0.02,
}
DAY_S = 1.0
"""More time than a day takes on a busy machine."""


def _numbers(line: Line, name: str) -> dict[str, int]:
    found = line[name]
    assert isinstance(found, dict)
    return found  # pyright: ignore[reportUnknownVariableType]  # of JSON


def _texts(line: Line, name: str) -> list[str]:
    found = line[name]
    assert isinstance(found, list)
    return found  # pyright: ignore[reportUnknownVariableType]  # of JSON


@pytest.mark.timeout(DAYS_FULL * DAY_S)
def test_every_day_ends_as_it_should(full: bool) -> None:
    share = (DAYS_FULL if full else DAYS) // PROCESSES
    processes = [begun(ROOT, str(number * share), str(share)) for number in range(PROCESSES)]
    outs = [lines(process, share * DAY_S) for process in processes]
    wrong = [line for out in outs for line in out if "seed" in line]
    assert not wrong, told(wrong)
    sums = [out[-1] for out in outs]
    print({name: [line[name] for line in sums] for name in ("days", "records", "runs", "verdicts", "faults")})
    stories = {story for line in sums for story in _texts(line, "stories")}
    assert len(stories) >= share * PROCESSES * 0.95, "on other days other things happen"
    for line in sums:
        assert _numbers(line, "faults").keys() == {harm.__name__ for harm in HARMS}, "every harm was done"
        for effect, a_day in EFFECTS.items():
            assert _numbers(line, "effects").get(effect, 0) > a_day * share, f"{effect} too seldom: {line['effects']}"
        for verdict, a_day in VERDICTS.items():
            assert _numbers(line, "verdicts").get(verdict, 0) > a_day * share, f"{verdict}: {line['verdicts']}"


def test_a_seed_gives_the_same_day_in_every_process_and_whatever_was_before() -> None:
    others = [begun(ROOT, "7", "1", hash_seed="1"), begun(ROOT, "3", "5", hash_seed="2")]
    alone, behind = [lines(process, 60.0)[-1] for process in others]
    here = simulate(7)
    assert simulate(7, keep_lines=True).digest == here.digest
    assert _texts(alone, "digests") == [here.digest]
    assert here.digest in _texts(behind, "digests")


def test_another_seed_gives_another_day() -> None:
    assert simulate(7).digest != simulate(8).digest


def test_a_killed_process_runs_nothing_more_and_a_stopped_one_goes_on_where_it_was() -> None:
    loop, done = SimLoop(Random(1)), list[str]()
    killed, stopped = Process("killed"), Process("stopped")

    async def work(name: str) -> None:
        try:
            await passes(1)
            done.append(name)
        finally:
            done.append(f"{name} cleans up")

    async def day() -> None:
        loop.start(killed, work("killed"))
        going_on = loop.start(stopped, work("stopped"))
        await passes(0.5)
        loop.kill(killed)
        loop.pause(stopped)
        await passes(5)
        assert done == []
        loop.resume(stopped)
        await going_on

    loop.run_until_complete(day())
    assert done == ["stopped", "stopped cleans up"]
    loop.revive(killed)
    loop.end()


def test_a_day_on_which_nothing_can_happen_any_more_is_an_error() -> None:
    loop = SimLoop(Random(1))
    waiting = loop.create_future()
    with pytest.raises(Deadlock):
        loop.run_until_complete(waiting)
    loop.close()


def test_a_failure_that_nobody_heard_of_is_told_at_the_end_unless_its_process_died_of_something_else() -> None:
    loop = SimLoop(Random(1))
    alive, killed = Process("alive"), Process("killed")

    async def fail() -> None:
        raise ValueError("unheard")

    async def day() -> None:
        loop.start(alive, fail())
        loop.start(killed, fail())
        heard = loop.start(alive, fail())
        await passes(1)
        loop.kill(killed)
        with pytest.raises(ValueError, match="unheard"):
            await heard

    loop.run_until_complete(day())
    [told] = loop.unretrieved()
    assert told.startswith("unretrieved ValueError('unheard') in ")
    assert told.endswith("fail of alive"), "no number of a task, which depends on the days before"
    loop.end()


def _accepted(version: int, stream: str, kind: str, epoch: int | None = None, step: int = 0) -> Judged:
    data: dict[str, Value] = {"run_id": "r", "checkpoint_id": f"r-{step}"}
    facts: list[Value] = [{"type": kind, "data": data}]
    return Judged(Record(0, version, "t", {"stream": stream, "facts": facts, "epoch": epoch}), "accepted", version)


def test_a_step_that_runs_unclaimed_or_twice_or_after_its_checkpoint_was_accepted_is_wrong() -> None:
    log = [
        _accepted(2, "thread-t", "RunClaimed"),
        _accepted(0, "run-r", "CheckpointSaved", 2),
        _accepted(4, "thread-t", "RunClaimed"),
    ]
    assert executions(log, [("r", 2, 0), ("r", 2, 1), ("r", 4, 1)]) == []
    assert executions(log, [("r", 3, 1), ("r", 4, 1), ("r", 4, 1), ("r", 4, 0)]) == [
        "run r, epoch 3, step 1: ran without an accepted claim",
        "run r, epoch 4, step 1: ran 2 times",
        "run r, epoch 4, step 0: its checkpoint of epoch 2 had been accepted",
    ]
