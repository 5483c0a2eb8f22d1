"""Mutated histories: whatever the log holds, each record gets a verdict, and the projector goes on.

A seed makes one history: the commits of a recorded aggregate, some of them changed in their JSON, their bytes or their
key. 8,000 of them are folded in memory with `--full`; the projector with its database folds fewer.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.histories.mutated import mutated
from tests.histories.record import PARTITIONS
from tests.projections.projector_env import MemoryTail, ProjectorEnv

from agentlog_facts.envelope import Draft, LogPosition
from agentlog_facts.errors import BlobMissing, Corrupt, UnknownSchema
from agentlog_facts.guard import Accepted, Void
from agentlog_facts.ids import Key
from agentlog_facts.json_value import Json
from agentlog_facts.notification import encode_hint
from agentlog_facts.ports import RawRecord
from agentlog_facts.vocabulary import append_id_of
from agentlog_infra.kafka.event_log import resolve
from agentlog_infra.kafka.partitions import partition_of
from agentlog_projections.projector.announcer import hint_of
from agentlog_projections.projector.ledger import LedgerFold
from agentlog_projections.projector.verdicts import Judged, Known, Read, judge, readable
from agentlog_projections.sql.batch import Transaction

NOW = datetime(2026, 1, 1, tzinfo=UTC)


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
