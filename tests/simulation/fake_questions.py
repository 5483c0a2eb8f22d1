"""Queries of projector and ledger that the simulated PostgreSQL answers, each recognised by a part of its text.

Queries of workers and gateways do not come here: their ports have twins in memory (`read_rows`).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from tests.simulation.fake_postgres import Connection, Postgres, Row, Statement
from tests.simulation.read_rows import read_rows


def listed(value: object) -> Sequence[object]:
    """Return an array argument."""
    assert isinstance(value, list | tuple), value
    return value  # pyright: ignore[reportUnknownVariableType]  # of objects, whatever they are


def _rows_of(postgres: Postgres, name: str) -> list[Row]:
    return list(postgres.tables[name].values())


def _alive(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    lease = arguments[0]
    assert isinstance(lease, timedelta)
    found = [
        str(row["owner"])
        for row in _rows_of(postgres, "ledger.projectors")
        if row["backend"] in postgres.sessions and _time(row["seen_at"]) > postgres.now() - lease
    ]
    return [{"alive": sorted(found), "rebuild_is_mine": None}]


def _lock(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    free = [n for n in listed(arguments[0]) if isinstance(n, int) and postgres.locks.get(n, session.pid) == session.pid]
    postgres.locks |= dict.fromkeys(free, session.pid)
    return [{"p": number} for number in free]


def _positions(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    rows = _rows_of(postgres, "ledger.positions")
    return [{**row, "stopped": row["stopped"] is not None, "refused_by": ()} for row in rows]


def _one_position(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    row = postgres.tables["ledger.positions"].get(arguments[0])
    return [] if row is None else [{"next_offset": row["next_offset"]}]


def _known(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    none: Row = {"head": None, "facts": None, "event_id": None, "body_sha256": None, "version": None}
    heads = postgres.tables["ledger.heads"]
    found = [{**none, **heads[key]} for key in listed(arguments[0]) if key in heads]
    asked = set(zip(listed(arguments[1]), listed(arguments[2]), strict=True))
    for row in _rows_of(postgres, "ledger.log_index"):
        if row["verdict"] == "accepted" and (row["key"], row["event_id"]) in asked:
            found.append({**none, **{name: row[name] for name in ("key", "event_id", "body_sha256", "version")}})
    return found


def _load_runs(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    rows = postgres.tables["read_v1.runs"]
    return [rows[key] for key in listed(arguments[0]) if key in rows]


def _load_threads(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    rows, moved = postgres.tables["read_v1.threads"], listed(arguments[1])
    found = [rows[key] for key in listed(arguments[0]) if key in rows]
    return [{**row, "values": row["values"] if row["thread_id"] in moved else None} for row in found]


def _meta_versions(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    found: dict[object, int] = {}
    for row in _rows_of(postgres, "ledger.log_index"):
        key, version = row["key"], row["version"]
        if key in listed(arguments[0]) and row["stream"] == f"meta-{key}" and row["verdict"] == "accepted":
            assert isinstance(version, int)
            found[key] = max(version, found.get(key, version))
    return [{"made_again": key, "version": version} for key, version in found.items()]


def _time(value: object) -> datetime:
    assert isinstance(value, datetime), value
    return value


def _ready_of(column: str) -> Statement:
    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        runs, wanted = postgres.tables["read_v1.runs"], listed(arguments[0])
        ready = [runs[row.run_id] for row in read_rows(postgres).first_in_line()]
        return [row for row in ready if row[column] in wanted]

    return run


def _index(*names: str) -> Statement:
    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        rows = [
            row
            for row in _rows_of(postgres, "ledger.log_index")
            if all(row[name] == value for name, value in zip(names, arguments, strict=True))
        ]
        if names == ("key", "event_id"):
            rows = [row for row in rows if row["verdict"] == "accepted"]
        return sorted(rows, key=lambda row: (row["verdict"] != "accepted", row["offset"]))[:1]

    return run


def _at(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    rows = postgres.tables["ledger.log_index"]
    return [rows[place] for place in zip(*map(listed, arguments), strict=True) if place in rows]


def _none(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    return []


QUESTIONS: list[tuple[str, Statement]] = [
    ("AS made_again", _meta_versions),
    ("AS rebuild_is_mine", _alive),
    ("pg_try_advisory_lock($2, p)", _lock),
    ("SELECT partition, owner, next_offset, stopped IS NOT NULL AS stopped", _positions),
    ("SELECT next_offset FROM ledger.positions WHERE partition = $1", _one_position),
    ("SELECT DISTINCT model, key FROM ledger.quarantine", _none),
    ("SELECT h.key, h.head, h.facts", _known),
    ("FROM read_v1.runs WHERE run_id = ANY($1::text[])", _load_runs),
    ("FROM read_v1.threads WHERE thread_id = ANY($1::text[])", _load_threads),
    ("AND r.thread_id = ANY($1::text[])", _ready_of("thread_id")),
    ("AND r.partition = ANY($1::int[])", _ready_of("partition")),
    ("WHERE key = $1 AND append_id = $2", _index("key", "append_id")),
    ("WHERE key = $1 AND event_id = $2", _index("key", "event_id")),
    ('AS asked(partition, "offset")', _at),
]
