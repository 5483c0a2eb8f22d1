"""Base class of the three embedded servers: one child process each, found again by the next start, stopped in steps."""

import asyncio
import logging
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from agentlog_facts.errors import Unavailable
from agentlog_infra.process.child import (
    Account,
    ProcessIdentity,
    child_environment,
    identify,
    recall,
    remember,
    spawn,
    stop_child,
    stop_orphan,
)
from agentlog_infra.stack.data_dir import DataDir

log = logging.getLogger(__name__)

Steps = Sequence[tuple[signal.Signals, float]]


class EmbeddedServer(ABC):
    """A server process that lives inside a data directory. The caller holds the directory's lock."""

    name: ClassVar[str]
    death_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_steps: ClassVar[Steps] = ((signal.SIGTERM, 10.0),)
    orphan_steps: ClassVar[Steps] = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))

    def __init__(self, data_dir: DataDir) -> None:
        self.data_dir = data_dir
        self.process: asyncio.subprocess.Process | None = None

    @property
    @abstractmethod
    def address(self) -> str:
        """Address of the server; the same for the life of this object."""

    @abstractmethod
    async def start(self) -> None:
        """Start the server and return when it accepts clients. Raises: Unavailable, Misconfigured."""

    @property
    def identity(self) -> ProcessIdentity | None:
        """Return the running process, if there is one."""
        return identify(self.process.pid) if self.process and self.process.returncode is None else None

    @property
    def _note(self) -> Path:
        return self.data_dir.run / f"{self.name}.json"

    async def wait(self) -> int:
        """Wait until the server ends by itself or is stopped; return its exit status."""
        return await self._running().wait()

    async def stop(self) -> None:
        """Stop the server, by force if it does not stop in time; acknowledged data survives either way."""
        if self.process is not None:
            await stop_child(self.process, self.stop_steps)
            self._note.unlink(missing_ok=True)
            self.process = None

    async def end_orphan(self) -> None:
        """Stop the server of an earlier start whose parent was killed. Raises: Unavailable if it does not exit."""
        left = recall(self._note)
        if left is not None and left.alive():
            log.warning("embedded.orphan_stopped", extra={"server": self.name, "pid": left.pid})
            if not await stop_orphan(left, self.orphan_steps):
                raise Unavailable(
                    f"{self.name}: process {left.pid} of an earlier start does not exit; kill it yourself"
                )
        self._note.unlink(missing_ok=True)

    async def _launch(
        self, argv: Sequence[str | Path], *, account: Account | None = None, ready_fd: int | None = None
    ) -> None:
        """Start the child in the foreground, its output in the data directory's logs."""
        with self.data_dir.open_log(self.name) as output:
            self.process = await spawn(
                argv,
                death_signal=self.death_signal,
                account=account,
                env=child_environment(),
                cwd="/",
                stdout=output,
                stderr=output,
                pass_fds=() if ready_fd is None else (ready_fd,),
                umask=0o077,
            )
        started = identify(self.process.pid)
        if started is not None:
            remember(self._note, started)

    def _running(self) -> asyncio.subprocess.Process:
        if self.process is None:
            raise Unavailable(f"{self.name} is not running")
        return self.process

    def _died(self) -> Unavailable:
        output = self.data_dir.log_tail(self.name)
        return Unavailable(f"{self.name} ended with status {self._running().returncode} while starting:\n{output}")
