"""The embedded log: a child process on a loopback port that stays the same at every start."""

import asyncio
import contextlib
import json
import secrets
import signal
import socket
import sys
from pathlib import Path

from agentlog_facts.errors import Unavailable
from agentlog_facts.topics import BLOBS, EVENTS, OUTPUTS
from agentlog_infra import timeouts
from agentlog_infra.process.child import folder_identity, stop_child, write_atomically
from agentlog_infra.process.ready_pipe import ReadyPipe
from agentlog_infra.stack.addresses import read_password
from agentlog_infra.stack.data_dir import DataDir
from agentlog_infra.stack.server import EmbeddedServer

_HOST = "127.0.0.1"
_ENDLESS = f"{EVENTS},{BLOBS}"
_UNDELETABLE = OUTPUTS


def _ensure_secret(path: Path) -> None:
    """Make the password of the embedded log, once for each data directory. Raises: Misconfigured for an empty file."""
    if not path.exists():
        write_atomically(path, secrets.token_urlsafe(32))
    read_password(path)


class EmbeddedBroker(EmbeddedServer):
    """The single-node Kafka-protocol server, `python -m agentlog_broker`."""

    name = "broker"
    stop_steps = ((signal.SIGTERM, 20.0),)
    orphan_steps = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))

    def __init__(self, data_dir: DataDir, *, deletable: bool = False) -> None:
        """`deletable`: clients may delete the topics of agentlog and their records, and change their retention."""
        super().__init__(data_dir)
        self._protection = () if deletable else ("--undeletable-topics", _UNDELETABLE, "--endless-topics", _ENDLESS)
        self._port: int | None = None

    @property
    def address(self) -> str:
        """Bootstrap servers for a Kafka client."""
        if self._port is None:
            raise Unavailable("the broker is not running")
        return f"{_HOST}:{self._port}"

    async def start(self) -> None:
        """Start the server, on the port of the last start if that is free, and return when it listens."""
        await self.end_orphan()
        _ensure_secret(self.data_dir.broker_secret)
        port = self._port or self._last_port()
        with ReadyPipe() as ready:
            words: list[str | Path] = [
                "--data",
                self.data_dir.broker,
                "--port",
                str(port),
                "--ready-fd",
                str(ready.child_end),
                "--secret-file",
                self.data_dir.broker_secret,
                *self._protection,
            ]
            await self._launch(
                [sys.executable, "-m", "agentlog_broker", *words, "--die-with-parent"], ready_fd=ready.child_end
            )
            ready.started()
            try:
                async with asyncio.timeout(timeouts.BROKER_START_S):
                    message = await ready.line()
            except TimeoutError as error:
                raise Unavailable(f"the broker was not ready within {timeouts.BROKER_START_S:.0f} s") from error
            except asyncio.CancelledError:
                await stop_child(self._running(), self.stop_steps)
                raise
        await self._accept(message)

    async def _accept(self, message: dict[str, object]) -> None:
        port = message.get("port")
        if not isinstance(port, int):
            await self._running().wait()
            raise self._died()
        self._port = port
        write_atomically(
            self.data_dir.root / "broker.port.json",
            json.dumps({"port": port, "home": folder_identity(self.data_dir.root)}),
        )

    def _last_port(self) -> int:
        """Return the port of the last start if it is free now, else 0 for any free port."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((self.data_dir.root / "broker.port.json").read_text())
            if found["home"] != folder_identity(self.data_dir.root):
                return 0  # the note was copied with its data directory: the port is that of the original
            port = int(found["port"])
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((_HOST, port))
            return port
        return 0
