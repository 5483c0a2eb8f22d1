"""Records that are no commits: whatever a record, a blob or a header holds, it is decoded or corrupt, and nothing else.

Each of these once ended the projector, which died again at the same record after every restart.
"""

import json
from datetime import UTC, datetime

import pytest
from tests.facts import commits as c
from tests.facts.commits import commit

from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import BlobMissing, Corrupt, Unavailable
from agentlog_facts.frame import decode_record
from agentlog_facts.json_value import Json, load_object
from agentlog_facts.ports import RawRecord
from agentlog_facts.vocabulary import encode_commit, encode_facts
from agentlog_infra.kafka.event_log import resolve
from agentlog_infra.kafka.outputs.records import Stored, parts_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REF = {"at": [0, "data", "metadata"], "sha256": "a" * 64, "size": 2}


class OneBlob:
    """Implements `ports.Blobs`: every digest has this value, None for a blob that has not arrived."""

    def __init__(self, value: Json) -> None:
        self._value = value

    async def read(self, sha256: str) -> Json:
        if self._value is None:
            raise BlobMissing(sha256)
        return self._value


def record(change: dict[str, object], key: bytes = b"t1") -> RawRecord:
    """Return the record of a good commit with some fields changed."""
    draft = commit(c.thread_created())
    stored = load_object(encode_commit(draft, encode_facts(draft)))
    return RawRecord(LogPosition(0, 1), key, json.dumps({**stored, **change}).encode(), NOW)


BROKEN: tuple[dict[str, object], ...] = (
    {"blobs": 5},
    {"blobs": {}},
    {"blobs": [1]},
    {"blobs": [{"at": [0, "data", "metadata"], "size": 2}]},
    {"blobs": [{**REF, "size": "2"}]},
    {"blobs": [{**REF, "sha256": "no digest"}]},
    {"blobs": [{**REF, "at": [7, "data", "metadata"]}]},
    {"blobs": [{**REF, "at": "metadata"}]},
    {"blobs": [REF], "facts": [5]},
    {"blobs": [REF], "facts": [{"type": "ThreadCreated", "schema": 1, "data": 7}]},
    {"blobs": [REF], "facts": [{"type": "ThreadCreated", "schema": 1}]},
    {"facts": "none"},
    {"facts": []},
    {"facts": [{"type": ["ThreadCreated"], "schema": 1, "data": {}}]},
    {"demands": None},
    {"demands": {"thread-t1": 0.5}},
    {"actor": None},
    {"actor": {"kind": "user"}},
    {"request": []},
    {"on_behalf_of": 1},
    {"occurred_at": "0001-01-01T00:00:00+14:00"},
    {"occurred_at": 5},
)


@pytest.mark.parametrize("change", BROKEN, ids=lambda change: str(change)[:60])
async def test_a_malformed_record_is_corrupt_and_nothing_else(change: dict[str, object]) -> None:
    with pytest.raises(Corrupt):
        await resolve(record(change), OneBlob({}))


async def test_a_key_that_is_no_text_is_corrupt() -> None:
    with pytest.raises(Corrupt):
        await resolve(record({}, b"\xff"), OneBlob({}))


async def test_a_record_whose_blob_has_not_arrived_is_not_corrupt() -> None:
    with pytest.raises(BlobMissing):
        await resolve(record({"blobs": [REF]}), OneBlob(None))
    assert issubclass(BlobMissing, Unavailable)
    assert not issubclass(BlobMissing, Corrupt)


@pytest.mark.parametrize("name", ["run_id", "epoch", "n", "end"])
@pytest.mark.parametrize("value", [b"\xff", b"x", b"", None])
def test_a_flush_with_a_broken_header_is_corrupt_or_a_flush(name: str, value: bytes | None) -> None:
    headers: dict[str, bytes | None] = {"run_id": b"r1", "epoch": b"1", "n": b"0", name: value}
    if name in ("run_id", "end") and value not in (b"\xff", None):
        assert decode_record(b'{"frames":[]}', list(headers.items())).frames == ()
        return
    with pytest.raises(Corrupt):
        decode_record(b'{"frames":[]}', list(headers.items()))


@pytest.mark.parametrize("value", [b"", b"5", b'{"frames":[1]}', b'{"frames":[{}]}', b'{"frames":' + b"[" * 250])
def test_a_flush_that_is_no_flush_is_corrupt(value: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_record(value, [("run_id", b"r1"), ("epoch", b"1"), ("n", b"0")])


@pytest.mark.parametrize("parts", [b"", b"x", b"-4096", b"4096,,", b"40960", b"9" * 5000])
def test_a_flush_that_names_parts_where_none_can_be_is_corrupt(parts: bytes) -> None:
    """A reader waited for them in vain, again and again, and its stream never ended."""
    with pytest.raises(Corrupt):
        parts_of(Stored(10, b"t1", b"", [("parts", parts)]), base=0)
