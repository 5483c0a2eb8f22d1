"""When a read may answer: once the projection has what the token names."""

import asyncio

import pytest
from tests.fakes.ports import TestClock

from agentlog_facts.envelope import Place
from agentlog_facts.errors import Unavailable
from agentlog_facts.hint import Hint
from agentlog_gateway.consistency import Folded, Token, parse_token
from agentlog_gateway.errors import Problem


class Positions:
    """Positions in memory; each question is counted."""

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self.asked = asyncio.Event()

    async def position(self, partition: int) -> int:
        self.asked.set()
        return self.next_offset


def folded(positions: Positions, step_s: float = 0.0) -> Folded:
    return Folded(positions, TestClock(step_s), generation=2, partitions=8)


def test_a_token_is_read_as_it_was_told() -> None:
    assert parse_token(folded(Positions(0)).token(Place(3, 17))) == Token(2, Place(3, 17))


@pytest.mark.parametrize("text", ["", "1:2", "a:b:c", "1:2:-3", "1:2:3:4", "1:2:99999999999999999999"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_token(text)
    assert refused.value.status == 422


async def test_what_is_folded_is_answered_at_once() -> None:
    await folded(Positions(18)).wait(Token(2, Place(3, 17)), 5)


async def test_a_hint_lets_a_waiting_read_go_on() -> None:
    positions = Positions(17)
    reads = folded(positions)
    waiting = asyncio.create_task(reads.wait(Token(2, Place(3, 17)), 5))
    await positions.asked.wait()
    reads.hear(Hint(2, 0, 99))
    reads.hear(Hint(3, 15, 17))
    await waiting


async def test_a_projection_that_does_not_come_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await folded(Positions(17), step_s=3).wait(Token(2, Place(3, 17)), 5)


async def test_a_token_of_an_older_log_is_long_folded_and_one_of_a_newer_is_wrong() -> None:
    await folded(Positions(0)).wait(Token(1, Place(3, 17)), 5)
    with pytest.raises(Problem):
        await folded(Positions(0)).wait(Token(3, Place(3, 17)), 5)
    with pytest.raises(Problem):
        await folded(Positions(0)).wait(Token(2, Place(8, 17)), 5)
