"""Decides when a read may answer: once the projection has what the client's consistency token names.

A token is `<generation>:<partition>:<offset>` of the client's own commit; it is answered by every mutation.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import Unavailable
from agentlog_facts.notification import Hint
from agentlog_gateway.http.errors import invalid
from agentlog_gateway.http.responses import TOKEN_HEADER

WAIT_S = 5.0
"""How long a read waits until the projection has reached its consistency token."""
LOOK_S = 0.5
"""The safety net: how often a reader that waits for a hint looks at the position itself."""


class Positions(Protocol):
    """How far each partition is folded; implemented by `agentlog_projections.projector.ledger`."""

    async def position(self, partition: int) -> int:
        """Return the next offset to be folded. Raises: Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Token:
    """A place on a generation of the log."""

    generation: int
    place: LogPosition


def parse_token(text: str) -> Token:
    """Read a token. Raises: Problem 422 for anything else."""
    parts = text.strip().split(":")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) < 19 for part in parts):
        raise invalid(f"{TOKEN_HEADER}: expected <generation>:<partition>:<offset>")
    generation, partition, offset = map(int, parts)
    return Token(generation, LogPosition(partition, offset))


class ProjectionProgress:
    """Knows how far the projection has come, from hints; asks where they are silent."""

    def __init__(self, positions: Positions, generation: int, partitions: int) -> None:
        self._positions = positions
        self._generation = generation
        self._partitions = partitions
        self._done: dict[int, int] = {}
        self._waiting: set[asyncio.Event] = set()

    def token(self, place: LogPosition) -> str:
        """Return the token of a commit."""
        return f"{self._generation}:{place.partition}:{place.offset}"

    def hear(self, hint: Hint) -> None:
        """Take a hint of the projector."""
        self._done[hint.partition] = hint.to  # not the highest: a restored log goes back
        for event in self._waiting:
            event.set()

    async def wait(self, token: Token, patience_s: float) -> None:
        """Return once the projection has the token's commit. Raises: Unavailable after `patience_s`, Problem 422."""
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
        """Return when a hint or the rows say so, whichever comes first: a database that hangs hides no hint."""
        event = asyncio.Event()
        self._waiting.add(event)
        looking = asyncio.create_task(self._look(place), name="consistency")
        looking.add_done_callback(lambda _: event.set())
        try:
            while self._done.get(place.partition, -1) < place.offset:
                if looking.done():
                    return looking.result()
                event.clear()
                await event.wait()
        finally:
            self._waiting.discard(event)
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look(self, place: LogPosition) -> None:
        while await self._positions.position(place.partition) <= place.offset:  # noqa: ASYNC110 - a hint may be lost
            await asyncio.sleep(LOOK_S)
