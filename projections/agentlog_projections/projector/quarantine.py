"""Quarantine of aggregates that cannot be folded: their commits wait, in order, until a retry.

Most are in quarantine of one read model: the ledger has judged their commits, and the other read models go on. If even
the ledger cannot take a record, or an operator parks its aggregate, the aggregate is in quarantine of the ledger
(`LEDGER`): its records wait without a verdict, whatever they hold.
"""

import logging
from collections.abc import Sequence

import asyncpg

from agentlog_facts.decoding import key_text
from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import Corrupt
from agentlog_facts.ports import RawRecord
from agentlog_postgres.connection import Executor, is_transient
from agentlog_projections.sql.batch import Composer, Transaction
from agentlog_projections.sql.read_model import Commit

log = logging.getLogger(__name__)

DETERMINISTIC = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, Corrupt, asyncpg.PostgresError)
"""Errors that the same commit would raise again, except those of `TRANSIENT`, which are faults of the database."""
LEDGER = "ledger"
"""Name, beside those of read models, under which aggregates are parked without verdicts."""

_PARK = """
INSERT INTO ledger.quarantine (model, key, partition, "offset", error, version, ordinal, ended)
SELECT model, key, partition, "offset", error, version, ordinal, string_to_array(ended, ',')
  FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::text[])
       AS r(model, key, partition, "offset", error, version, ordinal, ended)
ON CONFLICT DO NOTHING
"""
_BEHIND = "waits behind an earlier commit of its aggregate"
_MOST_ERROR = 500


class Quarantine:
    """The aggregates in quarantine, by read model."""

    def __init__(self) -> None:
        self._parked: set[tuple[str, str]] = set()
        self._errors: dict[LogPosition, str] = {}

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

    def add(self, raw: RawRecord, error: str) -> None:
        """Put the aggregate of a record into quarantine of the ledger, from this record on."""
        self._parked.add((LEDGER, key_text(raw.key)))
        self._errors[raw.place] = error
        log.error("projector.quarantined", extra={"model": LEDGER, "key": key_text(raw.key), "error": error})

    def park_unjudged(self, tx: Transaction, raws: Sequence[RawRecord]) -> None:
        """Collect the rows of records that wait without a verdict."""
        if raws:
            tx.write(_PARK, *zip(*(self._unjudged_row(raw) for raw in raws), strict=True))

    def _unjudged_row(self, raw: RawRecord) -> tuple[object, ...]:
        place = raw.place
        return LEDGER, key_text(raw.key), place.partition, place.offset, self._errors.get(place, _BEHIND), 0, 0, ""


def _row(model: str, commit: Commit, error: str) -> tuple[object, ...]:
    place, ended = commit.place, ",".join(commit.ended)
    return model, commit.draft.key, place.partition, place.offset, error, commit.version, commit.ordinal, ended


def is_deterministic(error: BaseException) -> bool:
    """Tell whether the same commit would raise this error again."""
    return isinstance(error, DETERMINISTIC) and not is_transient(error)


async def execute(connection: Executor, tx: Transaction, composer: Composer) -> None:
    """Send the collected writes, inside the caller's transaction."""
    for write in tx.first:
        await connection.execute(write.sql, *write.arguments)
    if tx.together:
        sql, arguments = composer.compose(tx.together)
        await connection.execute(sql, *arguments)
