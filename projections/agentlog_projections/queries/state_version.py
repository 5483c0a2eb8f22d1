"""Version of the rows from which the states of one thread are read, by one query of rows with known keys."""

from dataclasses import dataclass
from typing import Protocol

from agentlog_facts.errors import Quarantined
from agentlog_facts.ids import ThreadId
from agentlog_facts.json_value import load_object
from agentlog_postgres.connection import Pool, reading

_VERSION = """
SELECT t.metadata, h.facts, h.xmin::text AS written, p.generation,
       EXISTS (SELECT FROM ledger.quarantine q WHERE q.key = $1) AS parked,
       p.present AND p.stopped IS NULL AS is_authoritative
  FROM read_v1.threads t
  LEFT JOIN ledger.heads h ON h.key = t.thread_id LEFT JOIN ledger.positions p ON p.partition = h.partition
 WHERE t.thread_id = $1 AND t.deleted_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class StateVersion:
    """The graph of a thread's last run, and the version of the thread's rows.

    `graph_id` is None before the first run. Every commit of the thread's aggregate, also one of its checkpoints, gives
    its rows another version, and so does a rebuild. `version` is None while rows may change without one: while their
    partition is not present.
    """

    graph_id: str | None
    version: str | None


class StateVersions(Protocol):
    """Versions of the rows of threads."""

    async def get(self, thread_id: ThreadId) -> StateVersion | None:
        """Return the version of a thread, None if there is no such thread.

        Raises: Unavailable; Quarantined while commits of the thread wait in quarantine, so that its states are old.
        """
        ...


class PostgresStateVersions:
    """Implements `StateVersions`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, thread_id: ThreadId) -> StateVersion | None:
        async with reading(self._pool, "state_version") as connection:
            row = await connection.fetchrow(_VERSION, thread_id)
        if row is None:
            return None
        if row["parked"]:
            raise Quarantined(f"{thread_id}: its projection is in quarantine after an error, an operator must act")
        graph_id = load_object(row["metadata"]).get("graph_id")
        # Generation and transaction tell rows apart that have equally many facts but come from different logs.
        version = f"{row['generation']}.{row['written']}.{row['facts']}" if row["is_authoritative"] else None
        return StateVersion(graph_id if isinstance(graph_id, str) else None, version)
