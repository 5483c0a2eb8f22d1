"""PostgreSQL in memory: sessions, transactions, crashes, lost answers. Its statements: `fake_sql`.

A statement takes effect at one moment; those inside `transaction()` take effect together, at its COMMIT. A crash takes
back any number of the last commits that did not wait for the disk, and empties the unlogged table.
"""

import sys
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from types import TracebackType
from typing import TypeAlias

import asyncpg
from tests.simulation.fake_log import START
from tests.simulation.loop import OUTSIDE, PROCESS
from tests.simulation.network import Network, Server

from agentlog_facts.errors import Unavailable

Row: TypeAlias = dict[str, object]
Table: TypeAlias = dict[object, Row]
Statement: TypeAlias = Callable[["Postgres", "Connection", Sequence[object]], list[Row]]

MARKS = "ledger.crash_marks"
TABLES = (
    "ledger.positions",
    "ledger.projectors",
    MARKS,
    "ledger.heads",
    "ledger.log_index",
    "ledger.quarantine",
    "read_v1.runs",
    "read_v1.threads",
)


UNWRITTEN_S = 0.6
"""A commit that did not wait for the disk is there after three rounds of the WAL writer."""


class Postgres:
    """The server: tables, sessions, listeners."""

    def __init__(self, network: Network, understand: Callable[[str], Statement]) -> None:
        self.network = network
        self.server = Server("postgres")
        self.tables: dict[str, Table] = {name: {} for name in TABLES}
        self.sessions: dict[int, Connection] = {}
        self.locks: dict[int, int] = {}
        self.wrong: list[str] = []
        self.told: set[tuple[int, int]] = set()
        """Places on the log of the commits whose verdicts clients have; whoever reads rows must see them."""
        self.moved = 0
        """The number of positions that the first part of the current statement has moved."""
        self.waits_for_disk = False
        """The current transaction waits for the disk, although its session does not."""
        self._understand = understand
        self._last_pid = 0
        self._unwritten: list[tuple[float, dict[str, Table]]] = []

    def now(self) -> datetime:
        """Return the time by the database's clock."""
        return START + timedelta(seconds=self.network.loop.time())

    async def connect(self, *, durable: bool = True) -> "Connection":
        """Open a session for the calling process. Raises: asyncpg.ConnectionDoesNotExistError."""
        return await self.network.call(self.server, self._open(copy_context(), durable), broken)

    def _open(self, context: Context, durable: bool) -> "Callable[[], Connection]":
        def opened() -> Connection:
            self._last_pid += 1
            session = Connection(self, self._last_pid, context, durable=durable)
            self.sessions[session.pid] = session
            return session

        return opened

    def close(self, pid: int) -> None:
        """Close a session and release its locks."""
        self.sessions.pop(pid, None)
        self.locks = {lock: holder for lock, holder in self.locks.items() if holder != pid}

    def crash(self) -> None:
        """Crash; rows stay if their commit waited for the disk."""
        self.network.note("postgres crashes with sessions", len(self.sessions))
        lost = [tables for since_s, tables in self._unwritten if since_s > self.network.loop.time() - UNWRITTEN_S]
        left = int(self.network.chance.random() * (len(lost) + 1))
        if left < len(lost):
            self.network.note("postgres takes commits back", len(lost) - left)
            self.network.effects["postgres took commits back"] += 1
            self.tables = lost[left]
        self.tables[MARKS] = {}
        self._unwritten = []
        self.server.up, self.server.life = False, self.server.life + 1
        self.sessions, self.locks = {}, {}

    def start(self) -> None:
        """Start again."""
        self.server.up = True

    def demand_no_reverted_rows(self) -> None:
        """Do what each new connection of a pool for reads does. Raises: Unavailable."""
        if not self.server.up:
            raise Unavailable("postgres is away")
        for number, row in self.tables["ledger.positions"].items():
            if row["present"] is True and row["stopped"] is None and number not in self.tables[MARKS]:
                raise Unavailable(f"partition {number} is folded again")
        unseen = [
            place for place in self.told if place not in self.tables["ledger.log_index"] and self._shows(place[0])
        ]
        if unseen:
            self.wrong.append(f"somebody reads rows without these commits, whose verdicts were answered: {unseen}")

    def _shows(self, partition: int) -> bool:
        row = self.tables["ledger.positions"].get(partition)
        return row is not None and row["present"] is True and row["stopped"] is None

    def run(self, session: "Connection", statements: Sequence[tuple[str, Sequence[object]]]) -> list[Row]:
        """Execute statements together; return the rows of the last one."""
        writes = any(not sql.lstrip().startswith("SELECT") for sql, _ in statements)
        saved = {name: dict(table) for name, table in self.tables.items()} if writes else None
        self.waits_for_disk = session.durable
        found: list[Row] = []
        try:
            for sql, arguments in statements:
                found = self._understand(sql)(self, session, arguments)
        except asyncpg.PostgresError:
            if saved is not None:
                self.tables = saved
            raise
        if self.waits_for_disk and writes:
            self._unwritten = []
        elif saved is not None:
            self._unwritten.append((self.network.loop.time(), saved))
        return found

    def notify(self, channel: str, payload: str) -> None:
        """Notify all listeners, after a delay."""
        for session in self.sessions.values():
            for listener in session.listeners.get(channel, ()):
                self.network.later(self.network.delay_s(), session.delivery(listener, channel, payload))


def broken(message: str) -> Exception:
    """Return the exception of asyncpg for a lost connection."""
    return asyncpg.ConnectionDoesNotExistError(message)


Listener: TypeAlias = Callable[["Connection", int, str, str], None]


class Connection:
    """One session, with the part of asyncpg's class that the product uses."""

    def __init__(self, postgres: Postgres, pid: int, context: Context, *, durable: bool = True) -> None:
        self.pid = pid
        self.durable = durable
        self.process = context.get(PROCESS, OUTSIDE)
        self.listeners: dict[str, list[Listener]] = {}
        self._postgres = postgres
        self._context = context
        self._inside: list[tuple[str, Sequence[object]]] | None = None

    async def execute(self, sql: str, *arguments: object, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's
        """Execute a statement, at COMMIT inside a transaction."""
        if self._inside is not None:
            self._inside.append((sql, arguments))
            return "NOT_IMPLEMENTED"
        await self._send([(sql, arguments)])
        return "DONE"

    async def fetch(self, sql: str, *arguments: object, timeout: float | None = None) -> list[Row]:  # noqa: ASYNC109 - asyncpg's
        """Return rows."""
        return await self._send([(sql, arguments)])

    async def fetchrow(self, sql: str, *arguments: object, timeout: float | None = None) -> Row | None:  # noqa: ASYNC109 - asyncpg's
        """Return the first row."""
        rows = await self._send([(sql, arguments)])
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *arguments: object, timeout: float | None = None) -> object:  # noqa: ASYNC109 - asyncpg's
        """Return the first column of the first row."""
        row = await self.fetchrow(sql, *arguments)
        return None if row is None else next(iter(row.values()))

    async def add_listener(self, channel: str, listener: Listener) -> None:
        """Register a listener for later notifications."""
        self.listeners.setdefault(channel, []).append(listener)

    def delivery(self, listener: Listener, channel: str, payload: str) -> Callable[[], object]:
        """Return the callback that delivers to the process of this session."""
        loop = self._postgres.network.loop
        return lambda: loop.call_soon(listener, self, 0, channel, payload, context=self._context)

    def transaction(self) -> "Together":
        """Open a transaction."""
        return Together(self)

    async def close(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's
        """Close the session."""
        postgres = self._postgres
        await postgres.network.call(postgres.server, lambda: postgres.close(self.pid), broken)

    def terminate(self) -> None:
        """Abort the connection."""
        self._postgres.network.later(0.0, lambda: self._postgres.close(self.pid))

    def begin(self) -> bool:
        """Begin a transaction; False inside another one."""
        if self._inside is not None:
            self._postgres.wrong.append(f"the fold met an error of its own and parks aggregates: {sys.exc_info()[1]!r}")
            return False
        self._inside = []
        return True

    async def commit(self) -> None:
        """Execute the statements of the transaction."""
        statements, self._inside = self._inside, None
        if statements:
            await self._send(statements)

    def roll_back(self) -> None:
        """Discard the statements of the transaction."""
        self._inside = None

    async def _send(self, statements: Sequence[tuple[str, Sequence[object]]]) -> list[Row]:
        postgres = self._postgres
        return await postgres.network.call(postgres.server, lambda: self._arrived(statements), broken)

    def _arrived(self, statements: Sequence[tuple[str, Sequence[object]]]) -> list[Row]:
        if self.pid not in self._postgres.sessions:
            raise broken("the session is gone")
        return self._postgres.run(self, statements)


class Together:
    """A transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._outermost = False

    async def __aenter__(self) -> None:
        self._outermost = self._connection.begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._outermost:
            return
        if kind is None:
            await self._connection.commit()
        else:
            self._connection.roll_back()


class Pool:
    """Many sessions for short queries; they are interchangeable. `checked`: each is checked when it is opened."""

    def __init__(self, postgres: Postgres, *, checked: bool) -> None:
        self._postgres = postgres
        self._checked = checked

    def acquire(self, timeout: float | None = None) -> "Lent":
        """Yield a session."""
        return Lent(self._postgres, self._checked)

    async def fetch(self, sql: str, *arguments: object) -> list[Row]:
        """Return rows."""
        return await Asking(self._postgres, self._checked).fetch(sql, *arguments)

    async def fetchrow(self, sql: str, *arguments: object) -> Row | None:
        """Return the first row."""
        return await Asking(self._postgres, self._checked).fetchrow(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: object) -> object:
        """Return the first column of the first row."""
        return await Asking(self._postgres, self._checked).fetchval(sql, *arguments)

    async def close(self) -> None:
        """Do nothing: there is no session to close."""


class Asking(Connection):
    """A session of a pool; it is available while the server is."""

    def __init__(self, postgres: Postgres, checked: bool) -> None:
        super().__init__(postgres, 0, copy_context())
        self._checked = checked

    def _arrived(self, statements: Sequence[tuple[str, Sequence[object]]]) -> list[Row]:
        if self._checked:  # at each query: a session that was checked once sees no later crash
            self._postgres.demand_no_reverted_rows()
        return self._postgres.run(self, statements)


class Lent:
    """A session of a pool for the length of a block."""

    def __init__(self, postgres: Postgres, checked: bool) -> None:
        self._postgres = postgres
        self._checked = checked

    async def __aenter__(self) -> Asking:
        return Asking(self._postgres, self._checked)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: there is no session to return."""
