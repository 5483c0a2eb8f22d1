"""The questions of the product that the PostgreSQL of the simulation answers, each written again in Python.

They are known by a part of their text; whoever changes what a question means changes its answer here.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from tests.simulation.fake_postgres import Connection, Postgres, Row, Statement

from agentlog_facts.json_value import Json, dump, load, load_object

ACTIVE = ("pending", "running")


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


def _time(value: object) -> datetime:
    assert isinstance(value, datetime), value
    return value


def _number(value: object) -> int:
    assert isinstance(value, int), value
    return value


def _in_line(postgres: Postgres, run: Row) -> bool:
    due = run["due_at"]
    waits = run["status"] == "pending" and run["cancel"] is None and not run["deleted"]
    return waits and (due is None or _time(due) <= postgres.now())


def _place(run: Row) -> tuple[bool, int]:
    return run["attempt"] == 0, _number(run["seq"])


def _first_in_line(postgres: Postgres) -> list[Row]:
    """Return the runs that may be claimed: see `claimable`."""
    lines: dict[object, list[Row]] = {}
    taken: set[object] = set()
    for run in _rows_of(postgres, "read_v1.runs"):
        if run["status"] in ACTIVE and not run["deleted"] and (run["status"] == "running" or run["cancel"] is not None):
            taken.add(run["thread_id"])
        if _in_line(postgres, run):
            lines.setdefault(run["thread_id"], []).append(run)
    return [min(line, key=_place) for thread, line in lines.items() if thread not in taken]


def _is_present(postgres: Postgres, partition: object) -> bool:
    row = postgres.tables["ledger.positions"].get(partition)
    return row is not None and row["present"] is True and row["stopped"] is None


def _all_present(postgres: Postgres) -> bool:
    return all(_is_present(postgres, number) for number in postgres.tables["ledger.positions"])


def _ready_of(column: str) -> Statement:
    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        wanted = listed(arguments[0])
        return [row for row in _first_in_line(postgres) if row[column] in wanted]

    return run


def _ready_first(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    ready = [row for row in _first_in_line(postgres) if _is_present(postgres, row["partition"])]
    return sorted(ready, key=lambda row: _time(row["created_at"]))[: _number(arguments[0])]


def _work(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    run = postgres.tables["read_v1.runs"].get(arguments[0])
    if run is None or run["deleted"] or not _is_present(postgres, run["partition"]):
        return []
    thread = postgres.tables["read_v1.threads"][run["thread_id"]]
    if thread["deleted_at"] is not None:
        return []
    ready = any(row["run_id"] == run["run_id"] for row in _first_in_line(postgres))
    left = load(str(thread["next"]))
    of_thread = {"thread_metadata": thread["metadata"], "thread_values": thread["values"], "thread_next": left}
    return [{**run, **of_thread, "version": thread["version"], "ready": ready, "active": run["status"] in ACTIVE}]


def _run_version(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    key, stream = arguments
    rows = [row for row in _rows_of(postgres, "ledger.log_index") if row["key"] == key and row["stream"] == stream]
    versions = [_number(row["version"]) for row in rows if row["verdict"] == "accepted"]
    head = postgres.tables["ledger.heads"].get(key)
    authoritative = _all_present(postgres) if head is None else _is_present(postgres, head["partition"])
    return [{"is_authoritative": authoritative, "version": max(versions, default=None)}]


def _marks(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    runs, threads, found = postgres.tables["read_v1.runs"], postgres.tables["read_v1.threads"], list[Row]()
    for run_id, thread_id in zip(*map(listed, arguments), strict=True):
        run, thread = runs.get(run_id), threads.get(thread_id)
        if thread is not None and _is_present(postgres, thread["partition"]):
            told = {name: None if run is None else run[name] for name in ("epoch", "worker", "cancel")}
            found.append({"run_id": run_id, **told, "version": thread["version"]})
    return found


def _claims(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    found: list[Row] = []
    for run in _rows_of(postgres, "read_v1.runs"):
        if run["status"] == "running" and run["epoch"] is not None and not run["deleted"]:
            if _is_present(postgres, run["partition"]):
                later = _time(run["last_commit_at"]) > _time(run["claimed_at"])
                found.append({**run, "committed_at": run["last_commit_at"] if later else None})
    return sorted(found, key=lambda row: _time(row["claimed_at"]))


def _progressed(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    key, epoch, run_id = arguments
    rows = [row for row in _rows_of(postgres, "ledger.log_index") if row["key"] == key and row["verdict"] == "accepted"]
    claim = next((row for row in rows if row["stream"] == f"thread-{key}" and row["version"] == epoch), None)
    if claim is None:
        return [{"exists": False}]
    later = [row for row in rows if _number(row["offset"]) > _number(claim["offset"])]
    saved = any(row["stream"] == f"run-{run_id}" and "CheckpointSaved" in str(row["types"]) for row in later)
    return [{"exists": saved}]


def _leftovers(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    return [
        run
        for run in _rows_of(postgres, "read_v1.runs")
        if run["status"] == "pending"
        and not run["deleted"]
        and _is_present(postgres, run["partition"])
        and (run["cancel"] is not None or _number(run["counted_attempts"]) > _number(arguments[0]))
    ]


def _next_due(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    now = postgres.now()
    due = [
        _time(run["due_at"])
        for run in _rows_of(postgres, "read_v1.runs")
        if run["status"] == "pending" and not run["deleted"] and run["due_at"] is not None
    ]
    ahead = [(at - now).total_seconds() for at in due if at > now]
    return [{"seconds": min(ahead, default=None)}]


def _index(*names: str) -> Statement:
    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        rows = [
            row
            for row in _rows_of(postgres, "ledger.log_index")
            if all(row[name] == value for name, value in zip(names, arguments, strict=True))
        ]
        if names == ("key", "event_id"):
            rows = [row for row in rows if row["verdict"] == "accepted"]
        return sorted(rows, key=lambda row: (row["verdict"] != "accepted", _number(row["offset"])))[:1]

    return run


def _at(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    rows = postgres.tables["ledger.log_index"]
    return [rows[place] for place in zip(*map(listed, arguments), strict=True) if place in rows]


def _decision(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    thread_id, partition = arguments[:2]
    if partition not in postgres.tables["ledger.positions"]:
        return []
    thread = postgres.tables["read_v1.threads"].get(thread_id)
    empty: Row = {name: None for name in ("version", "meta_version", "temporary", "metadata", "deleted", "runs")}
    row: Row = {**empty, "present": _is_present(postgres, partition), "parked": False}
    if thread is None:
        return [row]
    row |= {name: thread[name] for name in ("version", "meta_version", "temporary", "metadata")}
    row["deleted"] = thread["deleted_at"] is not None
    runs = [run for run in _rows_of(postgres, "read_v1.runs") if run["thread_id"] == thread_id and not run["deleted"]]
    active = sorted((run for run in runs if run["status"] in ACTIVE), key=lambda run: _number(run["seq"]))
    row["runs"] = dump([_told(run) for run in active]).decode() if active else None
    return [row]


def _told(run: Row) -> Json:
    due, cancel, attempt, epoch = run["due_at"], run["cancel"], run["attempt"], run["epoch"]
    return [
        str(run["run_id"]),
        str(run["status"]),
        due.isoformat() if isinstance(due, datetime) else None,
        run["temporary"] is True,
        _number(attempt),
        _number(epoch) if epoch is not None else None,
        str(load_object(cancel)["action"]) if isinstance(cancel, str) else None,
        None,
        False,
    ]


def _none(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
    return []


QUESTIONS: list[tuple[str, Statement]] = [
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
    ("AS ready ORDER BY created_at LIMIT $1", _ready_first),
    ("t.metadata::text AS thread_metadata", _work),
    ("(SELECT max(version) FROM ledger.log_index", _run_version),
    ("SELECT k.run_id, r.epoch, r.worker, r.cancel::text AS cancel", _marks),
    ("CASE WHEN r.last_commit_at > r.claimed_at", _claims),
    ("'CheckpointSaved' = ANY(l.types)", _progressed),
    ("(r.cancel IS NOT NULL OR r.counted_attempts > $1)", _leftovers),
    ("SELECT extract(epoch FROM min(due_at) - now())", _next_due),
    ("WHERE key = $1 AND append_id = $2", _index("key", "append_id")),
    ("WHERE key = $1 AND event_id = $2", _index("key", "event_id")),
    ('AS asked(partition, "offset")', _at),
    ("FROM ledger.positions p LEFT JOIN read_v1.threads t ON t.thread_id = $1", _decision),
]
