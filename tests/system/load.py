"""Clients that keep a server busy while something is done to it, and the proof that nobody lost anything by it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from tests.system.checker.judgement import judged_well
from tests.system.checker.notes import Change, Notes
from tests.system.noted import Client

from agentlog_facts.json_value import JsonObject, as_object

ROUND_S = 60.0
STEPS: JsonObject = {"assistant_id": "steps", "input": {"sleep_ms": 50}}
AFTER = 3
"""How many more rounds each writer does behind what is done."""


class Writers:
    """They create, patch, run and read; each change and its answer is noted, and what a thread showed at the end."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.notes = Notes(all_threads=False)  # other tests of the same server made threads too
        self.rounds = 0
        self._urls = urls
        self._clients: list[Client] = []
        self._stop = asyncio.Event()

    @property
    def failed(self) -> list[Change | str]:
        """Return the requests that were not answered with success at once."""
        put_off = [told for client in self._clients for told in client.put_off]
        return [*put_off, *(change for change in self.notes.changes if not change.promised)]

    async def write(self, number: int) -> None:
        """Do round after round until told to stop."""
        client = Client(self._urls[number % len(self._urls)], f"writer-{number}", self.notes)
        self._clients.append(client)
        while not self._stop.is_set():
            async with asyncio.timeout(ROUND_S):
                thread_id = await client.thread()
                await client.change("PATCH", f"/threads/{thread_id}", {"metadata": {"a": 1}}, thread_id)
                values = await client.change("POST", f"/threads/{thread_id}/runs/wait", STEPS, thread_id)
                shown = await client.show(thread_id)
                assert len(as_object(values)) > 0
                assert shown.values == values
                self.notes.shown.append(shown)
                self.rounds += 1

    @asynccontextmanager
    async def going(self, writers: int) -> AsyncGenerator[None]:
        """Write while the block lasts, and for some rounds longer."""
        async with asyncio.TaskGroup() as group:
            for number in range(writers):
                group.create_task(self.write(number))
            await self.goes_on(2 * writers)
            yield
            await self.goes_on(AFTER * writers)
            self._stop.set()

    async def goes_on(self, rounds: int, within_s: float = ROUND_S) -> None:
        """Wait for so many more rounds."""
        enough = self.rounds + rounds
        async with asyncio.timeout(within_s):
            while self.rounds < enough:  # noqa: ASYNC110 - counted by several tasks
                await asyncio.sleep(0.01)

    async def judged(self, kafka: str, postgres: str) -> None:
        """Let the checker judge the whole log, the rows of the ledger and what was noted. Raises: AssertionError."""
        await judged_well(kafka, postgres, self.notes)
