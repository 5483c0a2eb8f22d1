"""Consistency tokens: a read with a token waits until the projection has the client's commit.

A token is `<generation>:<partition>:<offset>` of that commit; the response to every mutation carries one.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import Unavailable
from agentlog_facts.notification import Hint
from agentlog_gateway import timeouts
from agentlog_gateway.http.errors import invalid
from agentlog_gateway.http.responses import TOKEN_HEADER


class Positions(Protocol):
    """Position of the projection in each partition; implemented by `agentlog_projections.projector.ledger`."""

    async def position(self, partition: int) -> int:
        """Return the next offset to be folded. Raises: Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Token:
    """A position on a generation of the log."""

    generation: int
    place: LogPosition


def parse_token(text: str) -> Token:
    """Parse a token. Raises: Problem 422 for any other text."""
    parts = text.strip().split(":")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) < 19 for part in parts):
        raise invalid(f"{TOKEN_HEADER}: expected <generation>:<partition>:<offset>")
    generation, partition, offset = map(int, parts)
    return Token(generation, LogPosition(partition, offset))


class ProjectionProgress:
    """Progress of the projection, from hints; without a hint it polls the positions."""

    def __init__(self, positions: Positions, generation: int, partitions: int) -> None:
        self._positions = positions
        self._generation = generation
        self._partitions = partitions
        self._done: dict[int, int] = {}
        self._waiting: set[asyncio.Event] = set()

    def token(self, place: LogPosition) -> str:
        """Return the token of a commit."""
        return f"{self._generation}:{place.partition}:{place.offset}"

    def on_hint(self, hint: Hint) -> None:
        """Note the position in a hint of the projector."""
        self._done[hint.partition] = hint.to  # not the maximum: a restored log goes back
        for event in self._waiting:
            event.set()

    async def wait(self, token: Token, patience_s: float) -> None:
        """Wait until the projection has the token's commit. Raises: Unavailable after `patience_s`, Problem 422."""
        if token.generation > self._generation or token.place.partition >= self._partitions:
            raise invalid(f"{TOKEN_HEADER}: this log has generation {self._generation}, {self._partitions} partitions")
        if token.generation < self._generation or self._done.get(token.place.partition, -1) >= token.place.offset:
            return
        try:
            async with asyncio.timeout(patience_s):
                await self._wait(token.place)
        except TimeoutError:
            raise Unavailable(f"the projection has not reached {self.token(token.place)} yet") from None

    async def _wait(self, place: LogPosition) -> None:
        """Wait for a hint or the position, whichever comes first: a hint counts even while the database hangs."""
        event = asyncio.Event()
        self._waiting.add(event)
        polling = asyncio.create_task(self._poll(place), name="consistency")
        polling.add_done_callback(lambda _: event.set())
        try:
            while self._done.get(place.partition, -1) < place.offset:
                if polling.done():
                    return polling.result()
                event.clear()
                await event.wait()
        finally:
            self._waiting.discard(event)
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)

    async def _poll(self, place: LogPosition) -> None:
        while await self._positions.position(place.partition) <= place.offset:  # noqa: ASYNC110 - a hint may be lost
            await asyncio.sleep(timeouts.TOKEN_POLL_S)
