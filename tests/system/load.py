"""Clients that keep a server busy during a fault, and the checker's proof that no request was lost."""

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
"""The rounds of each writer after the fault."""


class Writers:
    """Clients that create, patch, run and read; they record each change, its answer, and each thread's last state."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.notes = Notes(all_threads=False)  # other tests of the same server created threads too
        self.rounds = 0
        self._urls = urls
        self._clients: list[Client] = []
        self._stop = asyncio.Event()

    @property
    def failed(self) -> list[Change | str]:
        """Return the requests that did not succeed at the first try."""
        delayed = [told for client in self._clients for told in client.delayed]
        return [*delayed, *(change for change in self.notes.changes if not change.promised)]

    async def write(self, number: int) -> None:
        """Run rounds until stopped."""
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
        """Write for the length of the block, and for some more rounds."""
        async with asyncio.TaskGroup() as group:
            for number in range(writers):
                group.create_task(self.write(number))
            await self.more_rounds(2 * writers)
            yield
            await self.more_rounds(AFTER * writers)
            self._stop.set()

    async def more_rounds(self, rounds: int, within_s: float = ROUND_S) -> None:
        """Wait for this number of further rounds."""
        enough = self.rounds + rounds
        async with asyncio.timeout(within_s):
            while self.rounds < enough:  # noqa: ASYNC110 - counted by several tasks
                await asyncio.sleep(0.01)

    async def judged(self, kafka: str, postgres: str) -> None:
        """Run the checker over the whole log, the ledger and the recorded answers. Raises: AssertionError."""
        await judged_well(kafka, postgres, self.notes)
