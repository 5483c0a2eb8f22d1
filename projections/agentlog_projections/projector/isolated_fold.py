"""Fold of a failing batch, model by model, then aggregate by aggregate; failing aggregates go to quarantine.

The same fold retries an aggregate in quarantine, outside of the projector.
"""

from collections.abc import Sequence

from agentlog_facts.decoding import key_text
from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import BlobMissing, Conflict
from agentlog_facts.ids import Key
from agentlog_facts.ports import EventRecords
from agentlog_postgres.connection import Connection, is_transient, translated
from agentlog_projections import timeouts
from agentlog_projections.projector.ledger import LedgerFold
from agentlog_projections.projector.quarantine import (
    DETERMINISTIC,
    LEDGER,
    Quarantine,
    execute,
    is_deterministic,
)
from agentlog_projections.projector.verdicts import judge, read_record
from agentlog_projections.sql.batch import Composer, Transaction
from agentlog_projections.sql.read_model import Commit, ReadModel, by_key

_TRY = "UPDATE ledger.quarantine SET attempts = attempts + 1 WHERE model = $1 AND key = $2"
_RELEASE = """
UPDATE ledger.positions SET owner = NULL
 WHERE partition IN (SELECT partition FROM ledger.quarantine WHERE model = $1 AND key = $2)
"""
_PARKED = """
SELECT partition, "offset", version, ordinal, ended FROM ledger.quarantine
 WHERE model = $1 AND key = $2 ORDER BY "offset"
"""
_STANDS = "UPDATE ledger.positions SET owner = NULL WHERE partition = $1 AND next_offset = $2"
_TAKE_AGAIN = "UPDATE ledger.projectors SET refused = array_remove(refused, $1)"
_PARK = """
INSERT INTO ledger.quarantine (model, key, partition, "offset", error, version, ordinal, ended)
VALUES ($1, $2, $3, $4, $5, 0, 0, '{}') ON CONFLICT DO NOTHING
"""
_FORGET = "DELETE FROM ledger.quarantine WHERE model = $1 AND key = $2"

_PATIENT = f"SET LOCAL idle_in_transaction_session_timeout = '{timeouts.ISOLATED_IDLE_S:.0f}s'"
MOST_REASON = 500


class IsolatedFold:
    """Applies read models inside the caller's transaction and quarantines only the aggregates that fail."""

    def __init__(
        self, connection: Connection, models: Sequence[ReadModel], quarantine: Quarantine, composer: Composer
    ) -> None:
        self._connection = connection
        self._models = models
        self._quarantine = quarantine
        self._composer = composer

    async def apply(self, commits: Sequence[Commit]) -> None:
        """Fold commits into every read model that can hold them. Raises: TRANSIENT."""
        await self._connection.execute(_PATIENT)
        for model in self._models:
            await self._apply(model, commits)

    async def _apply(self, model: ReadModel, commits: Sequence[Commit]) -> None:
        folded, waiting = self._quarantine.split(model.name, commits)
        await self._park(model, waiting)
        failure = await self._try(model, folded)
        if failure is None:
            return
        groups = list(by_key(folded).values())
        for group in groups:
            error = failure if len(groups) == 1 else await self._try(model, group)
            if error is not None:
                await self._park(model, group, f"{type(error).__name__}: {error}")

    async def _try(self, model: ReadModel, commits: Sequence[Commit]) -> Exception | None:
        """Apply inside a savepoint, and return the error if a second try would raise it too."""
        try:
            async with self._connection.transaction():
                tx = Transaction(self._connection)
                await model.apply(tx, commits)
                await execute(self._connection, tx, self._composer)
        except DETERMINISTIC as error:
            model.forget()
            if not is_deterministic(error):
                raise
            return error
        return None

    async def _park(self, model: ReadModel, commits: Sequence[Commit], *error: str) -> None:
        tx = Transaction(self._connection)
        self._quarantine.park(tx, model.name, commits, *error)
        await execute(self._connection, tx, self._composer)


async def park(connection: Connection, place: LogPosition, key: str, error: str) -> None:
    """Put the aggregate of the record at which a partition stands into quarantine of the ledger, from that record on.

    The projector passes over its records, whatever they hold. Raises: Conflict if the partition has moved on,
    Unavailable.
    """
    with translated(f"park of {key}"):
        async with connection.transaction():
            if await connection.execute(_STANDS, place.partition, place.offset) != "UPDATE 1":
                raise Conflict(f"partition {place.partition} has moved on from offset {place.offset}")
            await connection.execute(_TAKE_AGAIN, place.partition)
            await connection.execute(_PARK, LEDGER, key, place.partition, place.offset, error[:MOST_REASON])


async def retry(connection: Connection, log: EventRecords, models: Sequence[ReadModel], model: str, key: Key) -> int:
    """Apply the parked commits of an aggregate again, in order, and return how many there were.

    `model` is a read model, or LEDGER for an aggregate whose records wait for their verdicts. Meanwhile the projector
    loses the partition; it takes it again by itself. If a commit fails again, its error is raised, the attempt counts,
    and all commits stay in quarantine. Raises: Unavailable, which does not count.
    """
    for one in models:
        one.forget()
    with translated(f"retry of {model} {key}"):
        try:
            return await _retry(connection, log, models, model, key)
        except (BlobMissing, *DETERMINISTIC) as error:
            if not is_transient(error):
                await connection.execute(_TRY, model, key)
            raise


async def _retry(connection: Connection, log: EventRecords, models: Sequence[ReadModel], model: str, key: Key) -> int:
    async with connection.transaction():
        await connection.execute(_PATIENT)
        await connection.execute(_RELEASE, model, key)  # from here on no projector adds commits
        parked = await connection.fetch(_PARKED, model, key)
        places = [LogPosition(row["partition"], row["offset"]) for row in parked]
        if model == LEDGER:
            await _judge_again(connection, log, models, places, key)
        else:
            chosen = next(one for one in models if one.name == model)
            for place, row in zip(places, parked, strict=True):
                draft = await log.resolve(await log.raw(place))
                commit = Commit(place, draft, row["version"], row["ordinal"], tuple(row["ended"]))
                await _apply(connection, chosen, commit)
        await connection.execute(_FORGET, model, key)
    return len(parked)


async def _apply(connection: Connection, model: ReadModel, commit: Commit) -> None:
    tx = Transaction(connection)
    await model.apply(tx, [commit])
    await execute(connection, tx, Composer())


async def _judge_again(
    connection: Connection, log: EventRecords, models: Sequence[ReadModel], places: Sequence[LogPosition], key: Key
) -> None:
    """Judge and fold records that have no verdict; what only a read model cannot hold goes to its quarantine."""
    quarantine, ledger = Quarantine(), LedgerFold()
    await quarantine.load(connection)
    fold = IsolatedFold(connection, models, quarantine, Composer())
    for place in places:
        raw = await log.raw(place)
        if key_text(raw.key) != key:  # an operator parked the aggregate where it had no record
            continue
        reads = [await read_record(log, raw, log.partition_of)]
        tx = Transaction(connection)
        known = await ledger.known(tx, reads)
        judged = judge(reads, known)
        ledger.write(tx, judged, known)
        await execute(connection, tx, Composer())
        await fold.apply([one.commit for one in judged if one.commit is not None])
