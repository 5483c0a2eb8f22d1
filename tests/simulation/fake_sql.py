"""Statements of the product that the simulated PostgreSQL understands: parsed from their text, executed on rows.

Writes are parsed with their columns and conditions, so that a write without a condition has another effect here too.
Queries are recognised by their beginning. An unknown statement fails the simulation: it must be added.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import ClassVar

import asyncpg
from tests.simulation.fake_postgres import MARKS, Connection, Postgres, Row, Statement, Table
from tests.simulation.fake_questions import QUESTIONS, listed

KEYS = {
    "ledger.positions": ("partition",),
    "ledger.heads": ("key",),
    "ledger.log_index": ("partition", "offset"),
    "read_v1.runs": ("run_id",),
    "read_v1.threads": ("thread_id",),
}
_PARAMETER = re.compile(r"\$(\d+)")
_PART = re.compile(r"(?:^WITH |^\), )w\d+ AS \(\n", re.MULTILINE)
_COLUMNS = re.compile(r"AS [rn]\(([^)]*)\)")
_SET = re.compile(r'"?(\w+)"? = (?:r|n|excluded)\."?\w+"?')


class FencedOff(asyncpg.RaiseError):
    """The exception of `ledger.fenced()`."""

    sqlstate: ClassVar[str] = "AL001"


def understand(sql: str) -> Statement:
    """Return the effect of a statement. Raises: AssertionError for an unknown statement."""
    return _understood(sql)


@lru_cache(maxsize=1000)
def _understood(sql: str) -> Statement:
    parts = _parts(sql)
    if len(parts) > 1:
        return _together([(_plain(part), _parameters(part)) for part in parts])
    return _plain(sql)


def _parts(sql: str) -> list[str]:
    """Split a statement of `Composer` into its parts: all but the last are in parentheses."""
    if not sql.startswith("WITH w0 AS ("):
        return [sql]
    *withs, last = _PART.split(sql)[1:]
    inside, _, rest = last.rpartition("\n)\n")
    return [*withs, inside, rest]


def _parameters(sql: str) -> tuple[int, int]:
    numbers = [int(found) for found in _PARAMETER.findall(sql)]
    return (min(numbers) - 1, max(numbers)) if numbers else (0, 0)


def _together(parts: Sequence[tuple[Statement, tuple[int, int]]]) -> Statement:
    """Execute as PostgreSQL does: first the last part, which reads the first one, then the others; all or nothing."""
    (first, (start, end)), *others, (last, (last_start, last_end)) = parts

    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        saved = {name: dict(table) for name, table in postgres.tables.items()}
        try:
            postgres.moved = len(first(postgres, session, arguments[start:end]))
            found = last(postgres, session, arguments[last_start:last_end])
            for part, (part_start, part_end) in others:
                part(postgres, session, arguments[part_start:part_end])
        except asyncpg.PostgresError:
            postgres.tables = saved
            raise
        return found

    return run


def _plain(sql: str) -> Statement:
    text = " ".join(sql.split())
    for pattern, make in WRITES:
        found = re.match(pattern, text)
        if found is not None:
            return make(text, found)
    for beginning, question in QUESTIONS:
        if beginning in text:
            return question
    raise AssertionError(f"the simulation does not know this statement: {text}")


def _columns(text: str) -> list[str]:
    found = _COLUMNS.search(text)
    assert found is not None, text
    return [name.strip().strip('"') for name in found[1].split(",")]


def _rows(columns: Sequence[str], arguments: Sequence[object]) -> list[Row]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*map(listed, arguments), strict=True)]


def _key(table: str, row: Row) -> object:
    names = KEYS[table]
    return row[names[0]] if len(names) == 1 else tuple(row[name] for name in names)


def _insert(text: str, found: re.Match[str]) -> Statement:
    table, columns = found[1], _columns(text)
    _, conflict, after = text.partition(" ON CONFLICT ")
    changed = _SET.findall(after)
    keeps_values = "CASE WHEN excluded.thread_id = ANY(" in after

    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        rows = postgres.tables[table]
        whole = set(listed(arguments[len(columns)])) if keeps_values else set[object]()
        for row in _rows(columns, arguments[: len(columns)]):
            key = _key(table, row)
            if table == "ledger.log_index":
                _once(postgres, rows, row)
            old = rows.get(key)
            if old is not None and not conflict:
                raise asyncpg.UniqueViolationError(f"{table} {key}")
            if old is None:
                rows[key] = row
            else:
                new = {name: row[name] for name in changed if name in row}
                if row.get("thread_id") in whole:
                    new["values"] = row["values"]
                rows[key] = {**old, **new}
        return []

    return run


def _once(postgres: Postgres, rows: Table, row: Row) -> None:
    """Check the unique index over (key, event_id) of accepted commits."""
    if row["verdict"] != "accepted":
        return
    for other in rows.values():
        if other["verdict"] == "accepted" and (other["key"], other["event_id"]) == (row["key"], row["event_id"]):
            raise asyncpg.UniqueViolationError(f"{row['key']} {row['event_id']} is accepted twice")


def _update(text: str, found: re.Match[str]) -> Statement:
    table, columns = found[1], _columns(text)
    changed = _SET.findall(text.partition(" FROM ")[0])

    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        rows = postgres.tables[table]
        for row in _rows(columns, arguments):
            key = _key(table, row)
            if key in rows:
                rows[key] = {**rows[key], **{name: row[name] for name in changed}}
        return []

    return run


def _fence(text: str, found: re.Match[str]) -> Statement:
    columns = _columns(text)
    _, _, where = text.partition(" WHERE ")
    by_position, by_owner = "p.next_offset = n.previous" in where, "p.owner = $" in where

    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        rows, moved = postgres.tables["ledger.positions"], list[Row]()
        for row in _rows(columns, arguments[: len(columns)]):
            old = rows.get(row["partition"])
            if old is None or (by_position and old["next_offset"] != row["previous"]):
                continue
            if by_owner and old["owner"] != arguments[-1]:
                continue
            kept = {name: old[name] if row[name] is None else row[name] for name in ("log_id", "generation", "base")}
            kept["partitions"] = old["partitions"] if row["partitions"] is None else row["partitions"]
            present = old["present"] is True or row["present"] is True
            now = {"next_offset": row["next_offset"], "digest": row["digest"], "present": present, "stopped": None}
            rows[row["partition"]] = {**old, **now, **kept}
            moved.append({"partition": row["partition"]})
            postgres.network.note("position", row["partition"], row["next_offset"])
        return moved

    return run


def _fenced(text: str, found: re.Match[str]) -> Statement:
    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        if postgres.moved != arguments[0]:
            raise FencedOff("somebody else folds these partitions")
        return [{"now": postgres.now()}]

    return run


def _take(text: str, found: re.Match[str]) -> Statement:
    condition = " WHERE " in text

    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        rows, taken = postgres.tables["ledger.positions"], list[Row]()
        new: Row = {"next_offset": 0, "digest": None, "present": False, "stopped": None, "log_id": None}
        new |= {"generation": None, "base": None, "partitions": None, "owner": None}
        for number in listed(arguments[0]):
            old = rows.get(number, {"partition": number, **new})
            dead = listed(arguments[2]) if condition else ()
            if condition and not (arguments[3] or old["owner"] in (None, arguments[1], *dead)):
                continue
            rows[number] = {**old, "owner": arguments[1]}
            taken.append({**rows[number], "marked": number in postgres.tables[MARKS]})
            postgres.network.note("taken", number, "by", arguments[1])
        return taken

    return run


def _mark(text: str, found: re.Match[str]) -> Statement:
    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        postgres.waits_for_disk = True
        postgres.tables[MARKS] |= {number: {"partition": number} for number in listed(arguments[0])}
        return []

    return run


def _say(text: str, found: re.Match[str]) -> Statement:
    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        rows = postgres.tables["ledger.positions"]
        for row in _rows(["partition", "present", "stopped"], arguments[:3]):
            old = rows.get(row["partition"])
            if old is not None and old["owner"] == arguments[3]:
                rows[row["partition"]] = {**old, **row}
        return []

    return run


def _give_up(text: str, found: re.Match[str]) -> Statement:
    some = "partition = ANY($1" in text

    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        owner = arguments[1] if some else arguments[0]
        for key, row in postgres.tables["ledger.positions"].items():
            if row["owner"] == owner and (not some or key in listed(arguments[0])):
                postgres.tables["ledger.positions"][key] = {**row, "owner": None}
        if "DELETE FROM ledger.projectors" in text:
            postgres.tables["ledger.projectors"].pop(owner, None)
        return []

    return run


def _delete_runs(text: str, found: re.Match[str]) -> Statement:
    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        rows = postgres.tables["read_v1.runs"]
        for key in [key for key, row in rows.items() if row["thread_id"] == arguments[0]]:
            del rows[key]
        return []

    return run


def _beat(text: str, found: re.Match[str]) -> Statement:
    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        owner = arguments[0]
        seen: Row = {"owner": owner, "seen_at": postgres.now(), "backend": session.pid}
        postgres.tables["ledger.projectors"][owner] = seen
        return []

    return run


def _nothing(text: str, found: re.Match[str]) -> Statement:
    return lambda postgres, session, arguments: []


def _notify(text: str, found: re.Match[str]) -> Statement:
    def run(postgres: Postgres, session: Connection, arguments: Sequence[object]) -> list[Row]:
        postgres.notify(found[1], str(arguments[0]))
        return []

    return run


Made = Callable[[str, "re.Match[str]"], Statement]
WRITES: list[tuple[str, Made]] = [
    (r"INSERT INTO ledger\.positions", _take),
    (r"INSERT INTO ledger\.projectors", _beat),
    (r"INSERT INTO ledger\.crash_marks", _mark),
    (r"LOCK TABLE |SET LOCAL ", _nothing),
    (r"INSERT INTO ledger\.quarantine .*'probe'", _nothing),
    (r"DELETE FROM ledger\.quarantine WHERE model = 'probe'", _nothing),
    (r"INSERT INTO (\S+)", _insert),
    (r"UPDATE ledger\.positions p SET next_offset", _fence),
    (r"UPDATE ledger\.positions p SET present", _say),
    (r"UPDATE ledger\.positions SET owner = NULL", _give_up),
    (r"WITH gone AS \(DELETE FROM ledger\.projectors", _give_up),
    (r"DELETE FROM ledger\.projectors WHERE seen_at", _nothing),
    (r"DELETE FROM read_v1\.runs WHERE thread_id = \$1", _delete_runs),
    (r"UPDATE (read_v1\.\w+) t SET", _update),
    (r"SELECT CASE WHEN \(SELECT count\(\*\) FROM w0\)", _fenced),
    (r"SELECT pg_notify\('(\w+)', \$1\)", _notify),
]
