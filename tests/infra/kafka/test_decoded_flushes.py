"""Tests of decoded flushes that readers share: given records, then which of them are decoded again."""

from dataclasses import replace

import pytest

from agentlog_facts.errors import Corrupt
from agentlog_facts.frame import Frame, FrameRecord, encode_record
from agentlog_facts.ids import RunId
from agentlog_infra.kafka.outputs.records import KEPT_BYTES, DecodedFlushes, Stored


def a_record(offset: int, text: str = "x") -> Stored:
    """Return a flush with one frame, as fetched."""
    value, headers = encode_record(FrameRecord(RunId("r1"), 1, offset, (Frame("custom", {"text": text}),)))
    return Stored(offset, b"t1", value, tuple(headers))


def test_readers_of_one_record_share_its_flush() -> None:
    flushes = DecodedFlushes()
    first = flushes.decoded(a_record(1), 0, 0)
    assert first.record.frames == (Frame("custom", {"text": "x"}),)
    assert flushes.decoded(a_record(1), 0, 0) is first


@pytest.mark.parametrize("other", [a_record(1, "y"), replace(a_record(1), headers=a_record(2).headers)])
def test_another_record_at_the_same_place_is_decoded_itself(other: Stored) -> None:
    flushes = DecodedFlushes()
    flushes.decoded(a_record(1), 0, 0)
    assert flushes.decoded(other, 0, 0) == DecodedFlushes().decoded(other, 0, 0)


@pytest.mark.parametrize(("partition", "base"), [(1, 0), (0, 100)])
def test_a_record_of_another_partition_or_log_is_decoded_itself(partition: int, base: int) -> None:
    flushes = DecodedFlushes()
    flushes.decoded(a_record(1), 0, 0)
    assert flushes.decoded(a_record(1), partition, base) == DecodedFlushes().decoded(a_record(1), partition, base)


def test_only_the_last_ones_are_kept() -> None:
    flushes, size = DecodedFlushes(), KEPT_BYTES // 4
    records = [a_record(offset, "x" * size) for offset in range(5)]
    found = [flushes.decoded(record, 0, 0) for record in records]
    assert flushes.decoded(records[4], 0, 0) is found[4]
    assert flushes.decoded(records[0], 0, 0) is not found[0]


def test_one_that_cannot_be_decoded_is_not_kept() -> None:
    flushes = DecodedFlushes()
    for _ in range(2):
        with pytest.raises(Corrupt):
            flushes.decoded(replace(a_record(1), value=b"{"), 0, 0)
