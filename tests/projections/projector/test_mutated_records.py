"""Mutated histories: whatever the log holds, each record gets a verdict, and the projector goes on.

A seed makes one history: the commits of a recorded aggregate, some of them changed in their JSON, their bytes or their
key. 8,000 of them are folded in memory with `--full`; the projector with its database folds fewer.
"""

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import pytest
from tests.histories.files import HERE, read_records, versions
from tests.histories.record import PARTITIONS
from tests.projections.projector_env import MemoryTail, ProjectorEnv

from agentlog_facts.envelope import Draft, LogPosition
from agentlog_facts.errors import BlobMissing, Corrupt, UnknownSchema
from agentlog_facts.guard import Accepted, Void
from agentlog_facts.ids import Key
from agentlog_facts.json_value import Json, dump, load
from agentlog_facts.notification import encode_hint
from agentlog_facts.ports import RawRecord
from agentlog_facts.vocabulary import FACTS, append_id_of
from agentlog_infra.kafka.event_log import resolve
from agentlog_infra.kafka.partitions import partition_of
from agentlog_projections.projector.announcer import hint_of
from agentlog_projections.projector.ledger import LedgerFold
from agentlog_projections.projector.verdicts import Judged, Known, Read, judge, readable
from agentlog_projections.sql.batch import Transaction

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


class SomeBlobs:
    """Implements `ports.Blobs` with a value that fits nowhere; every second digest has not arrived."""

    async def read(self, sha256: str) -> Json:
        if sha256[0] in "13579bdf":
            raise BlobMissing(sha256)
        return [[{"set": {"x": 1}}], None]


class ResolvingTail(MemoryTail):
    """A tail that decodes as the tail of the real log does."""

    async def resolve(self, raw: RawRecord) -> Draft:
        return await resolve(raw, SomeBlobs())


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


async def read(raw: RawRecord) -> Read | None:
    """Decode a record as the projector does; None where its partition stops."""
    try:
        draft = await resolve(raw, SomeBlobs())
    except (UnknownSchema, BlobMissing):
        return None
    except Corrupt as error:
        return Read(raw, None, Void("unreadable", None, None, str(error)[:200]))
    return Read(raw, draft, readable(draft, raw, lambda key: partition_of(key.encode(), PARTITIONS)))


async def judged(history: Sequence[RawRecord]) -> tuple[list[Judged], Mapping[Key, Known]]:
    reads = [one for raw in history if (one := await read(raw)) is not None]
    known: defaultdict[Key, Known] = defaultdict(Known)
    return judge(reads, known), known


def written(records: Sequence[Judged], known: Mapping[Key, Known]) -> list[object]:
    """Return every value that the ledger would store."""
    tx = Transaction(None)  # type: ignore[arg-type]  # nothing is read
    LedgerFold().write(tx, records, known)
    return [value for write in tx.together for column in write.arguments for value in column]  # type: ignore[attr-defined]  # columns


def storable(value: object) -> bool:
    """Tell whether PostgreSQL can store a value of the ledger."""
    if isinstance(value, str):
        return re.search("[\x00\ud800-\udfff]", value) is None  # as text in UTF-8
    return not isinstance(value, int) or -(2**63) <= value < 2**63


async def test_every_record_of_a_mutated_history_gets_a_verdict_that_can_be_stored_and_sent(full: bool) -> None:
    reasons: defaultdict[str, int] = defaultdict(int)
    for seed in range(8_000 if full else 250):
        records, known = await judged(mutated(seed))
        assert all(map(storable, written(records, known))), seed
        assert encode_hint(hint_of(0, 0, records)), seed
        for one in records:
            reasons["accepted" if isinstance(one.verdict, Accepted) else getattr(one.verdict, "reason", "other")] += 1
    assert min(reasons["accepted"], reasons["unreadable"]) > 100, dict(reasons)


async def test_the_projector_goes_on_over_mutated_histories(env: ProjectorEnv, full: bool) -> None:
    places: list[LogPosition] = []
    for seed in range(1_000 if full else 40):
        for raw in mutated(seed):
            key = raw.key or b""
            if await read(replace(raw, key=key)) is not None:
                places.append(env.log.put(key, raw.value))
    tail = ResolvingTail(env.log.partitions, env.log.records)
    env.log.readers.append(tail)
    async with env.projector(tail=tail):
        await env.folded()
    assert len(await env.ledger.at(places)) == len(places)


@pytest.mark.parametrize("depth", [1, 201, 100_000])
def test_a_record_that_is_nested_too_deeply_still_tells_its_append_id(depth: int) -> None:
    """The worker that wrote its state as deep as that waited for the verdict, and wrote it again, without end."""
    deep = b"[" * depth + b"]" * depth
    value = b'{"spec":1,"rules":1,"event_id":"e1","append_id":"a1","facts":' + deep + b"}"
    assert append_id_of(value) == "a1"


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"[1]", b'{"append_id":5}', b'{"facts":[{"append_id":"a"}'])
def test_a_record_without_an_append_id_tells_none(value: bytes | None) -> None:
    assert append_id_of(value) == ""
