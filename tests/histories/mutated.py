"""Mutated histories: the commits of a recorded aggregate, some changed in their JSON, their bytes or their key."""

import random
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

from tests.histories.files import HERE, read_records, versions

from agentlog_facts.envelope import LogPosition
from agentlog_facts.json_value import Json, dump, load
from agentlog_facts.ports import RawRecord
from agentlog_facts.vocabulary import FACTS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "a" * 64
NUMBERS: list[Json] = [None, True, False, 0, 1, -1, 2**31, 2**63, -(2**64), 10**4000, 1.5, 1e308]
TEXTS: list[Json] = ["", "x", "\x00", "é\u2028", "x" * 700, "absent", "thread-t1", DIGEST, "2026-13-01", "0001-01-01"]
SHAPES: list[Json] = [
    [],
    [[]],
    [None],
    {},
    {"": None},
    {"a": {"b": [1]}},
    [{"at": [0, "data", "metadata"], "sha256": DIGEST, "size": 1}],
    {"type": "RunCreated", "schema": 1, "data": {}},
]
VALUES = [*NUMBERS, *TEXTS, *SHAPES]


@cache
def aggregates() -> tuple[tuple[RawRecord, ...], ...]:
    """Return the records of every recorded aggregate, in order."""
    found: defaultdict[tuple[str, bytes], list[RawRecord]] = defaultdict(list)
    for version in versions():
        for one in read_records(HERE / version / "events.jsonl"):
            raw = RawRecord(LogPosition(one.partition, one.offset), one.key, one.value, NOW)
            found[version, one.key or b""].append(raw)
    return tuple(map(tuple, found.values()))


def mutated(seed: int) -> list[RawRecord]:
    """Return the history of a seed."""
    chance = random.Random(seed)
    history = list(chance.choice(aggregates()))[: chance.randint(2, 25)]
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(history))
        history[at] = changed(history[at], chance)
    return history


def changed(raw: RawRecord, chance: random.Random) -> RawRecord:
    value = raw.value or b""
    match chance.randrange(12):
        case 0:
            return replace(raw, key=chance.choice([None, b"", b"\xff\x00", b"k" * 700, b"t1"]))
        case 1:
            return replace(raw, value=None)
        case 2:
            return replace(raw, value=value[: chance.randrange(len(value) + 1)])
        case 3:
            at = chance.randrange(len(value) + 1)
            return replace(raw, value=value[:at] + chance.randbytes(chance.randint(1, 3)) + value[at + 1 :])
        case 4:
            depth = chance.choice([100, 195, 200, 201, 5000])
            return replace(raw, value=value.replace(b":null", b":" + b"[" * depth + b"]" * depth, 1))
        case _:
            try:
                record = load(value)
            except ValueError:
                return raw
            for _ in range(chance.randint(1, 3)):
                change(record, chance)
            return replace(raw, value=dump(record))


def change(value: Json, chance: random.Random) -> None:
    """Change one place of a JSON value."""
    match value:
        case dict() if value:
            name = chance.choice(list(value))
            if descends(value[name], chance):
                change(value[name], chance)
            elif chance.random() < 0.2:
                del value[name]
            elif chance.random() < 0.2:
                value[chance.choice([*value, "facts", "blobs", "epoch", *FACTS])] = value[name]
            else:
                value[name] = another(value[name], chance)
        case list() if value:
            at = chance.randrange(len(value))
            if descends(value[at], chance):
                change(value[at], chance)
            else:
                value[at] = another(value[at], chance)
        case _:
            pass


def descends(inner: Json, chance: random.Random) -> bool:
    return isinstance(inner, dict | list) and bool(inner) and chance.random() < 0.75


def another(value: Json, chance: random.Random) -> Json:
    if isinstance(value, str) and chance.random() < 0.3:
        return chance.choice([*FACTS, "run-r1", "thread-t1", "meta-t1"])
    return load(dump(chance.choice(VALUES)))
