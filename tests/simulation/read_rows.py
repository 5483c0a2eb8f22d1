"""Rows of the simulated PostgreSQL for the twins of `WorkerQueries` and `CommandContexts`."""

from tests.fakes.memory_rows import LoggedCommit, MemoryRows
from tests.simulation.fake_postgres import Postgres, Row

from agentlog_facts.envelope import LogPosition
from agentlog_facts.json_value import load_object
from agentlog_facts.notification import decode_verdict
from agentlog_projections.models import runs, threads
from agentlog_projections.models.run_fold import RunOrigin, RunRow
from agentlog_projections.models.thread_fold import ThreadRow

_ORIGIN, _RUN = runs.COLUMNS.of(RunOrigin), runs.COLUMNS.of(RunRow)


def read_rows(postgres: Postgres) -> MemoryRows:
    """Return a snapshot of the rows that the projector has written so far."""
    now = postgres.now()
    positions, heads = postgres.tables["ledger.positions"], postgres.tables["ledger.heads"]
    return MemoryRows(
        now=lambda: now,
        partitions={_int(key): bool(row["present"]) and row["stopped"] is None for key, row in positions.items()},
        partition_of={str(key): _int(row["partition"]) for key, row in heads.items()},
        log=[_logged(row) for _, row in sorted(postgres.tables["ledger.log_index"].items(), key=_place)],
        runs={str(key): _run(row) for key, row in postgres.tables["read_v1.runs"].items()},
        threads={str(key): _thread(row) for key, row in postgres.tables["read_v1.threads"].items()},
    )


def _int(value: object) -> int:
    assert isinstance(value, int), value
    return value


def _place(item: tuple[object, Row]) -> LogPosition:
    return LogPosition(_int(item[1]["partition"]), _int(item[1]["offset"]))


def _logged(row: Row) -> LoggedCommit:
    return LoggedCommit(
        place=LogPosition(_int(row["partition"]), _int(row["offset"])),
        key=str(row["key"]),
        stream=str(row["stream"]),
        event_id=str(row["event_id"]),
        types=tuple(str(row["types"]).split(",")),
        verdict=decode_verdict(load_object(str(row["detail"]))),
    )


def _thread(row: Row) -> ThreadRow:
    return threads.COLUMNS.read(ThreadRow, row)  # type: ignore[arg-type]  # a row with the columns that a record has


def _run(row: Row) -> RunRow:
    origin = _ORIGIN.read(RunOrigin, row)  # type: ignore[arg-type]  # as above
    return _RUN.read(RunRow, row, origin=origin)  # type: ignore[arg-type]  # as above
