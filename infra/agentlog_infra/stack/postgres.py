"""The embedded PostgreSQL: binaries of a wheel, our own supervision, full durability."""

import asyncio
import logging
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_infra import timeouts
from agentlog_infra.process.child import command_line, identify, spawn, stop_child, stop_orphan
from agentlog_infra.stack.data_dir import DataDir
from agentlog_infra.stack.postgres_files import PostgresHome, settle
from agentlog_infra.stack.server import EmbeddedServer
from agentlog_infra.stack.socket_dirs import private_folder, server_account

log = logging.getLogger(__name__)

_MAJOR = "18"
_DATABASE = "postgres"
_SHARED_MEMORY_IN_USE = "pre-existing shared memory block"
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "300",  # several of each role, each with a pool of its own
    "shared_buffers": "64MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "jit": "off",
    # Short statements only: no parallel workers, so no shared memory files, which containers keep small.
    "max_parallel_workers_per_gather": "0",
    "io_method": "sync",
}


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL 18 on a unix socket in a private folder."""

    name = "postgres"
    death_signal = signal.SIGINT  # fast shutdown
    stop_steps = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0))
    orphan_steps = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))

    def __init__(self, data_dir: DataDir) -> None:
        super().__init__(data_dir)
        self._settled: PostgresHome | None = None

    @property
    def home(self) -> PostgresHome:
        """The folders; known once started."""
        if self._settled is None:
            raise Unavailable("postgres is not running")
        return self._settled

    @property
    def address(self) -> str:
        """A connection URI over the unix socket."""
        return f"postgresql://postgres@/{_DATABASE}?host={quote(str(self.home.sockets), safe='/')}"

    async def start(self) -> None:
        """Create the cluster on the first start, clean up after a killed server, start, wait until it is ready."""
        await self.end_orphan()
        self._settled = await asyncio.to_thread(settle, self.data_dir, server_account())
        await self._make_cluster()
        deadline = time.monotonic() + timeouts.POSTGRES_SHARED_MEMORY_S
        while not await self._start_once():
            # Children of a killed postmaster hold its memory until they notice its death.
            if _SHARED_MEMORY_IN_USE not in self.data_dir.log_tail(self.name) or time.monotonic() > deadline:
                raise self._died()
            await asyncio.sleep(timeouts.POSTGRES_SHARED_MEMORY_POLL_S)

    async def _make_cluster(self) -> None:
        rows = self.home.rows
        if not rows.exists():
            await self._initdb(rows)
        found = (private_folder(rows, self.home.account) / "PG_VERSION").read_text().strip()
        if found != _MAJOR:
            raise Misconfigured(
                f"{rows} was made by PostgreSQL {found}, expected {_MAJOR}: move the folder away; "
                "the rows are rebuilt from the log"
            )

    async def _initdb(self, rows: Path) -> None:
        """Create a cluster under another name, then rename it, so that a killed first start leaves no partial one."""
        fresh = rows.with_name(f"{rows.name}.new")
        if fresh.exists():
            await asyncio.to_thread(shutil.rmtree, fresh)
        private_folder(fresh, self.home.account)
        words = ["-U", "postgres", "-E", "UTF8", "--locale=C", "--auth=trust", "--data-checksums"]
        process = await spawn(
            [self.home.binaries / "initdb", "-D", fresh, *words],
            death_signal=signal.SIGKILL,
            account=self.home.account,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            umask=0o077,
        )
        try:
            _, errors = await process.communicate()
        finally:
            await stop_child(process, ())
        if process.returncode:
            raise Unavailable(
                f"initdb ended with status {process.returncode}: {errors.decode(errors='replace').strip()}"
            )
        fresh.rename(rows)

    async def _start_once(self) -> bool:
        await self._clear_stale()
        options = _SETTINGS | {"unix_socket_directories": str(self.home.sockets)}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        await self._launch([self.home.binaries / "postgres", "-D", self.home.rows, *words], account=self.home.account)
        try:
            async with asyncio.timeout(timeouts.POSTGRES_START_S):
                return await self._ready()
        except TimeoutError as error:
            raise Unavailable(f"postgres was not ready within {timeouts.POSTGRES_START_S:.0f} s") from error
        except asyncio.CancelledError:
            await stop_child(self._running(), self.stop_steps)
            raise

    async def _ready(self) -> bool:
        """Watch the status line of postmaster.pid; PostgreSQL tells a plain parent of its readiness in no other way."""
        process = self._running()
        while process.returncode is None:
            lines = _lines(self.home.rows / "postmaster.pid")
            if len(lines) > 7 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                return True
            await asyncio.sleep(timeouts.POSTGRES_POLL_S)
        return False

    async def _clear_stale(self) -> None:
        """Stop a server that still runs on our rows; remove pid files of a killed one, even if its pid is in use."""
        for path in (self.home.rows / "postmaster.pid", self.home.sockets / ".s.PGSQL.5432.lock"):
            lines = _lines(path)
            if lines and lines[0].isdigit():
                await self._stop_if_ours(int(lines[0]))
            path.unlink(missing_ok=True)

    async def _stop_if_ours(self, pid: int) -> None:
        words, found = command_line(pid), identify(pid)
        if found is None or str(self.home.rows) not in words or "postgres" not in words[0]:
            return
        log.warning("embedded.orphan_stopped", extra={"server": self.name, "pid": pid})
        if not await stop_orphan(found, self.orphan_steps):
            raise Unavailable(f"postgres: process {pid} of an earlier start does not exit; kill it yourself")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split("\n")
    except OSError:
        return []
