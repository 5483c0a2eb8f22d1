"""Days of the whole town from many seeds: whatever dies, stands still or gets lost, every day ends as it should."""

from random import Random

import pytest
from tests.simulation.loop import Deadlock, Process, SimLoop, passes
from tests.simulation.nemesis import HARMS
from tests.simulation.runs import ROOT, Line, begun, lines, told
from tests.simulation.simulation import simulate

DAYS = 2_000
DAYS_FULL = 20_000
PROCESSES = 2
DAY_S = 1.0
"""More than a day takes on a busy machine."""


def _numbers(line: Line, name: str) -> dict[str, int]:
    found = line[name]
    assert isinstance(found, dict)
    return found  # pyright: ignore[reportUnknownVariableType]  # of JSON


def _digests(line: Line) -> list[str]:
    found = line["digests"]
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
    assert len({digest for line in sums for digest in _digests(line)}) == share * PROCESSES, "no two days are the same"
    for line in sums:
        assert _numbers(line, "faults").keys() == {harm.__name__ for harm in HARMS}, "every harm was done"
        assert min(_numbers(line, "verdicts")[kind] for kind in ("accepted", "duplicate", "void")) > share / 4


def test_a_seed_gives_the_same_day_in_every_process_and_whatever_was_before() -> None:
    others = [begun(ROOT, "7", "1", hash_seed="1"), begun(ROOT, "3", "5", hash_seed="2")]
    alone, behind = [lines(process, 60.0)[-1] for process in others]
    here = simulate(7)
    assert simulate(7, keep_lines=True).digest == here.digest
    assert _digests(alone) == [here.digest]
    assert here.digest in _digests(behind)


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
        loop.go_on(stopped)
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
