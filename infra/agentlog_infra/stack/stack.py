"""The stack: log, PostgreSQL and Valkey, run together on one data directory."""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_infra.process.child import die_with_parent, identify
from agentlog_infra.process.restart_budget import RestartBudget
from agentlog_infra.process.wait import first_to_end
from agentlog_infra.settings import Settings, without_password
from agentlog_infra.stack.addresses import Addresses, join
from agentlog_infra.stack.broker import EmbeddedBroker
from agentlog_infra.stack.data_dir import DataDir, Lock
from agentlog_infra.stack.postgres import EmbeddedPostgres
from agentlog_infra.stack.server import EmbeddedServer
from agentlog_infra.stack.stack_file import write_stack
from agentlog_infra.stack.valkey import EmbeddedValkey

__all__ = ["Addresses", "External", "Stack", "join", "run_stack"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class External:
    """Addresses that replace an embedded server; None where the embedded one runs."""

    kafka: str | None = None
    postgres: str | None = None
    redis: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the addresses that these settings name."""
        return cls(settings.kafka_bootstrap, settings.database_uri, settings.redis_uri)


class Stack:
    """The running servers of one data directory; a server that dies is started again at the same address."""

    def __init__(
        self,
        data_dir: str | Path,
        external: External | None = None,
        lock: Lock | None = None,
        *,
        deletable: bool = False,
    ) -> None:
        """`lock` comes from a caller that has already locked the directory, and stays with it.

        `deletable`: clients may delete the topics of agentlog on the embedded log.
        """
        self.data_dir = DataDir.at(data_dir)
        self._external = external or External()
        self._broker = None if self._external.kafka else EmbeddedBroker(self.data_dir, deletable=deletable)
        self._postgres = None if self._external.postgres else EmbeddedPostgres(self.data_dir)
        self._valkey = None if self._external.redis else EmbeddedValkey(self.data_dir)
        self._own_lock = None if lock else Lock(self.data_dir)
        self._keepers: list[asyncio.Task[None]] = []
        self._url: str | None = None

    @property
    def servers(self) -> Sequence[EmbeddedServer]:
        """Return the embedded servers among the three."""
        return [server for server in (self._broker, self._postgres, self._valkey) if server is not None]

    @property
    def addresses(self) -> Addresses:
        """Return the addresses of the servers."""
        return Addresses(
            self._external.kafka or (self._broker.address if self._broker else ""),
            self._external.postgres or (self._postgres.address if self._postgres else ""),
            self._external.redis or (self._valkey.address if self._valkey else ""),
            str(self.data_dir.broker_secret) if self._broker else None,
        )

    async def __aenter__(self) -> Self:
        """Lock the directory and start all servers concurrently. Raises: DataDirInUse, Unavailable, Misconfigured."""
        self.data_dir.make()
        if self._own_lock:
            self._own_lock.__enter__()
        try:
            await _all(server.start() for server in self.servers)
            self._write()
        except BaseException:
            await self._stop()
            raise
        self._keepers = [asyncio.create_task(self._keep(server), name=server.name) for server in self.servers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the servers and unlock the directory."""
        await self._stop()

    def publish(self, url: str) -> None:
        """Write the URL of the gateway into the stack's file."""
        self._url = url
        self._write()

    async def wait_failed(self) -> None:
        """Wait until a server cannot be kept running. Raises: Unavailable, naming it."""
        if not self._keepers:
            await asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait(self._keepers, return_when=asyncio.FIRST_COMPLETED)
        for keeper in done:
            keeper.result()

    async def _keep(self, server: EmbeddedServer) -> None:
        budget = RestartBudget()
        while True:
            status = await server.wait()
            delay_secs = budget.next_delay_secs()
            log.error("embedded.died", extra={"server": server.name, "status": status})
            if delay_secs is None:
                raise Unavailable(f"{server.name} keeps crashing:\n{self.data_dir.log_tail(server.name)}")
            await asyncio.sleep(delay_secs)
            await server.start()
            self._write()

    async def _stop(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []
        await asyncio.gather(*(server.stop() for server in self.servers))
        self.data_dir.stack_file.unlink(missing_ok=True)
        if self._own_lock:
            self._own_lock.__exit__(None, None, None)

    def _write(self) -> None:
        ours = identify(os.getpid())
        running = {server.name: asdict(one) for server in self.servers if (one := server.identity)}
        owner = asdict(ours) if ours else {}
        found = {
            "format": 1,
            "owner": owner,
            "addresses": asdict(self.addresses),
            "servers": running,
            "url": self._url,
        }
        write_stack(self.data_dir, found)


async def _all(starts: Iterable[Coroutine[object, object, None]]) -> None:
    """Run all to their ends, then raise the first error: a half-started stack is stopped by the caller."""
    for outcome in await asyncio.gather(*starts, return_exceptions=True):
        if outcome is not None:
            raise outcome


async def run_stack(
    data_dir: str | Path, external: External | None = None, *, announce: bool = True, deletable: bool = False
) -> None:
    """Run the servers until SIGTERM or SIGINT; when they are ready, print their addresses as one line of JSON."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with Stack(data_dir, external, deletable=deletable) as stack:
        if announce:
            shown = {name: without_password(text) for name, text in asdict(stack.addresses).items() if text is not None}
            print(json.dumps(shown | {"pid": os.getpid()}), flush=True)
        await first_to_end(stopping.wait(), stack.wait_failed())


def main(words: Sequence[str] | None = None) -> int:
    """Run the servers alone: `python -m agentlog_infra.stack.stack --data-dir DIR`."""
    parser = argparse.ArgumentParser(prog="agentlog_infra.stack.stack", description=main.__doc__)
    parser.add_argument("--data-dir", default="./.agentlog")
    parser.add_argument("--die-with-parent", action="store_true", help="stop when the starting process dies (Linux)")
    given = parser.parse_args(words)
    if given.die_with_parent:
        die_with_parent()
    try:
        settings = Settings.load()
        asyncio.run(run_stack(given.data_dir, External.of(settings), deletable=settings.embedded_deletion))
    except AgentlogError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
