"""Readiness of a child process: one line of JSON on a pipe that it inherits."""

import asyncio
import json
import os
from types import TracebackType
from typing import Self

from agentlog_facts.errors import Unavailable


class ReadyPipe:
    """The parent's side: give `child_end` to the child, close it here once the child runs, then wait for the line."""

    def __init__(self) -> None:
        self._read, self.child_end = os.pipe()
        self._open = True

    def __enter__(self) -> Self:
        """Enter the context, which closes both ends at its exit."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is still open."""
        self.started()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1

    def started(self) -> None:
        """Close the child's end on our side: from now on the pipe ends when the child ends."""
        if self._open:
            os.close(self.child_end)
            self._open = False

    async def line(self) -> dict[str, object]:
        """Wait for the child's line, empty if it ended without one. Raises: Unavailable if the line is not JSON."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        read, self._read = self._read, -1
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", 0)
        )
        try:
            received = await reader.readline()
        finally:
            transport.close()
        if not received:
            return {}
        try:
            found: dict[str, object] = json.loads(received)
        except ValueError as error:
            raise Unavailable(f"expected one line of JSON from the child, found {received[:200]!r}") from error
        return found
