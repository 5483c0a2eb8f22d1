"""Consistency tokens: a read waits until the projection has the token's commit."""

import asyncio

import pytest

from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import Unavailable
from agentlog_facts.notification import Hint
from agentlog_gateway.http.errors import Problem
from agentlog_gateway.reads.consistency_token import ProjectionProgress, Token, parse_token


class Positions:
    """Positions in memory; `hangs`: no query returns."""

    def __init__(self, next_offset: int, hangs: bool = False) -> None:
        self.next_offset = next_offset
        self.hangs = hangs
        self.asked = asyncio.Event()

    async def position(self, partition: int) -> int:
        self.asked.set()
        if self.hangs:
            await asyncio.Event().wait()
        return self.next_offset


def folded(positions: Positions) -> ProjectionProgress:
    return ProjectionProgress(positions, generation=2, partitions=8)


def test_a_token_is_read_as_it_was_told() -> None:
    assert parse_token(folded(Positions(0)).token(LogPosition(3, 17))) == Token(2, LogPosition(3, 17))


@pytest.mark.parametrize("text", ["", "1:2", "a:b:c", "1:2:-3", "1:2:3:4", "1:2:99999999999999999999"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_token(text)
    assert refused.value.status == 422


async def test_what_is_folded_is_answered_at_once() -> None:
    await folded(Positions(18)).wait(Token(2, LogPosition(3, 17)), 5)


async def test_a_hint_lets_a_waiting_read_go_on() -> None:
    positions = Positions(17)
    reads = folded(positions)
    waiting = asyncio.create_task(reads.wait(Token(2, LogPosition(3, 17)), 5))
    await positions.asked.wait()
    reads.on_hint(Hint(2, 0, 99))
    reads.on_hint(Hint(3, 15, 17))
    await waiting


async def test_a_projection_that_does_not_come_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await folded(Positions(17)).wait(Token(2, LogPosition(3, 17)), 0.05)


async def test_a_database_that_hangs_hides_no_hint_and_moves_no_deadline() -> None:
    positions = Positions(17, hangs=True)
    reads = folded(positions)
    async with asyncio.timeout(5):
        waiting = asyncio.create_task(reads.wait(Token(2, LogPosition(3, 17)), 5))
        await positions.asked.wait()
        reads.on_hint(Hint(3, 15, 17))
        await waiting
        with pytest.raises(Unavailable):
            await reads.wait(Token(2, LogPosition(3, 18)), 0.05)


async def test_rows_that_do_not_answer_a_read_are_said_at_once() -> None:
    class Away(Positions):
        async def position(self, partition: int) -> int:
            raise Unavailable("the database is away")

    with pytest.raises(Unavailable, match="the database is away"):
        await folded(Away(0)).wait(Token(2, LogPosition(3, 17)), 5)


async def test_a_token_of_an_older_log_is_long_folded_and_one_of_a_newer_is_wrong() -> None:
    await folded(Positions(0)).wait(Token(1, LogPosition(3, 17)), 5)
    with pytest.raises(Problem):
        await folded(Positions(0)).wait(Token(3, LogPosition(3, 17)), 5)
    with pytest.raises(Problem):
        await folded(Positions(0)).wait(Token(2, LogPosition(8, 17)), 5)
