"""Writes of a batch, collected by read models and sent to PostgreSQL as one statement, which is one transaction."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import asyncpg

from agentlog_postgres.connection import Executor

Argument: TypeAlias = object
_PARAMETER = re.compile(r"\$(\d+)")


@dataclass(frozen=True, slots=True)
class Write:
    """One data-changing statement with parameters $1..$n of its own."""

    sql: str
    arguments: tuple[Argument, ...]


@dataclass(slots=True)
class Transaction:
    """Reads of a batch, and its collected writes: `first` in order before everything else, then `together`.

    Writes of `together` see the rows as they were before the batch and never each other's, so no two of them may touch
    the same row. Reads see committed rows only.
    """

    connection: Executor
    first: list[Write] = field(default_factory=list[Write])
    together: list[Write] = field(default_factory=list[Write])

    async def fetch(self, sql: str, *arguments: Argument) -> list[asyncpg.Record]:
        """Read rows."""
        return await self.connection.fetch(sql, *arguments)

    def write(self, sql: str, *arguments: Argument) -> None:
        """Add a statement to those that are executed together."""
        self.together.append(Write(sql, arguments))

    def write_first(self, sql: str, *arguments: Argument) -> None:
        """Add a statement that is executed before all others; for rare cases."""
        self.first.append(Write(sql, arguments))


@dataclass(slots=True)
class Composer:
    """Joins statements into one; equal combinations give equal texts, so PostgreSQL plans each of them once."""

    _texts: dict[tuple[str, ...], str] = field(default_factory=dict[tuple[str, ...], str])

    def compose(self, writes: Sequence[Write]) -> tuple[str, list[Argument]]:
        """Return one statement: all but the last as common table expressions, the last one gives the result."""
        sqls = tuple(write.sql for write in writes)
        text = self._texts.get(sqls)
        if text is None:
            text = self._texts[sqls] = _joined(writes)
        return text, [argument for write in writes for argument in write.arguments]


def _joined(writes: Sequence[Write]) -> str:
    parts: list[str] = []
    shift = 0
    for write in writes:
        parts.append(_shifted(write.sql, shift))
        shift += len(write.arguments)
    names = [f"w{number} AS (\n{part}\n)" for number, part in enumerate(parts[:-1])]
    return f"WITH {', '.join(names)}\n{parts[-1]}" if names else parts[-1]


def _shifted(sql: str, shift: int) -> str:
    return _PARAMETER.sub(lambda found: f"${int(found[1]) + shift}", sql)
