"""Quarantine of aggregates that a read model cannot hold: their commits are parked, in order, until `retry`."""

import logging
from collections.abc import Collection, Sequence

import asyncpg

from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import Corrupt
from agentlog_facts.ids import Key
from agentlog_facts.ports import EventLog
from agentlog_postgres.connection import TRANSIENT, Connection, Executor, translated
from agentlog_projections.sql.batch import Composer, Transaction
from agentlog_projections.sql.read_model import Commit, ReadModel

log = logging.getLogger(__name__)

DETERMINISTIC = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, Corrupt, asyncpg.PostgresError)
"""Errors that the same commit would raise again, except those of `TRANSIENT`, which are faults of the database."""
UNSTORABLE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)
"""Errors of PostgreSQL about a value that no column or index can hold: the fault is the record's, not ours."""

_PARK = """
INSERT INTO ledger.quarantine (model, key, partition, "offset", error, version, ordinal, ended)
SELECT model, key, partition, "offset", error, version, ordinal, string_to_array(ended, ',')
  FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::text[])
       AS r(model, key, partition, "offset", error, version, ordinal, ended)
ON CONFLICT DO NOTHING
"""
_TRY = "UPDATE ledger.quarantine SET attempts = attempts + 1 WHERE model = $1 AND key = $2"
_RELEASE = """
UPDATE ledger.positions SET owner = NULL
 WHERE partition IN (SELECT partition FROM ledger.quarantine WHERE model = $1 AND key = $2)
"""
_PARKED = """
SELECT partition, "offset", version, ordinal, ended FROM ledger.quarantine
 WHERE model = $1 AND key = $2 ORDER BY "offset"
"""
_BEHIND = "waits behind an earlier commit of its aggregate"
_MOST_ERROR = 500


class Quarantine:
    """The aggregates in quarantine, by read model."""

    def __init__(self) -> None:
        self._parked: set[tuple[str, str]] = set()

    async def load(self, connection: Executor) -> None:
        """Load the aggregates in quarantine."""
        rows = await connection.fetch("SELECT DISTINCT model, key FROM ledger.quarantine")
        self._parked = {(row["model"], row["key"]) for row in rows}

    def holds(self, model: str, key: str) -> bool:
        """Tell whether an aggregate is in quarantine of a read model."""
        return (model, key) in self._parked

    def split(self, model: str, commits: Sequence[Commit]) -> tuple[Sequence[Commit], Sequence[Commit]]:
        """Return the commits that the model may fold, and those that wait in its quarantine."""
        if not self._parked:
            return commits, ()
        waiting = [commit for commit in commits if self.holds(model, commit.draft.key)]
        return [commit for commit in commits if not self.holds(model, commit.draft.key)], waiting

    def park(self, tx: Transaction, model: str, commits: Sequence[Commit], error: str = _BEHIND) -> None:
        """Collect the rows of commits that wait."""
        if not commits:
            return
        key = commits[0].draft.key
        if error != _BEHIND:
            self._parked.add((model, key))
            log.error("projector.quarantined", extra={"model": model, "key": key, "error": error[:_MOST_ERROR]})
        text = error[:_MOST_ERROR].replace("\x00", "")
        tx.write(_PARK, *zip(*(_row(model, commit, text) for commit in commits), strict=True))


def _row(model: str, commit: Commit, error: str) -> tuple[object, ...]:
    place, ended = commit.place, ",".join(commit.ended)
    return model, commit.draft.key, place.partition, place.offset, error, commit.version, commit.ordinal, ended


def is_deterministic(error: BaseException) -> bool:
    """Tell whether the same commit would raise this error again."""
    return isinstance(error, DETERMINISTIC) and not isinstance(error, TRANSIENT)


async def retry(connection: Connection, log_: EventLog, models: Collection[ReadModel], model: str, key: Key) -> int:
    """Apply the parked commits of an aggregate again, in order, and return how many there were.

    Meanwhile the projector loses the partition; it takes it again by itself. If a commit fails again, its error is
    raised and all commits stay in quarantine. Raises: Unavailable.
    """
    chosen = next(one for one in models if one.name == model)
    with translated(f"retry of {model} {key}"):
        await connection.execute(_TRY, model, key)
        async with connection.transaction():
            await connection.execute(_RELEASE, model, key)  # from here on no projector adds commits
            parked = await connection.fetch(_PARKED, model, key)
            chosen.forget()
            for row in parked:
                place = LogPosition(row["partition"], row["offset"])
                recorded = await log_.read(place)
                commit = Commit(place, recorded.draft, row["version"], row["ordinal"], tuple(row["ended"]))
                await _apply(connection, chosen, commit)
            await connection.execute("DELETE FROM ledger.quarantine WHERE model = $1 AND key = $2", model, key)
    return len(parked)


async def _apply(connection: Connection, model: ReadModel, commit: Commit) -> None:
    tx = Transaction(connection)
    await model.apply(tx, [commit])
    await execute(connection, tx, Composer())


async def execute(connection: Executor, tx: Transaction, composer: Composer) -> None:
    """Send the collected writes, inside the caller's transaction."""
    for write in tx.first:
        await connection.execute(write.sql, *write.arguments)
    if tx.together:
        sql, arguments = composer.compose(tx.together)
        await connection.execute(sql, *arguments)
