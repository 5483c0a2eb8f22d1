"""Partitions of the topics: the partitioner of keys, and the first record of each partition of `events`.

The partitioner is murmur2, as in the default partitioners of Java and aiokafka. The first record names log id,
generation and the base of positions; the bases apply to `outputs` too.
"""

import asyncio
from collections.abc import Sequence

from aiokafka.partitioner import murmur2

from agentlog_facts.decoding import guarded
from agentlog_facts.envelope import Fact
from agentlog_facts.errors import Corrupt, Misconfigured, UnknownSchema
from agentlog_facts.json_value import as_object
from agentlog_facts.system import PartitionOpened
from agentlog_facts.topics import EVENTS
from agentlog_facts.vocabulary import decode_fact, parse_commit
from agentlog_infra.kafka.reader import KafkaReader


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key in a topic of this many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


async def partition_headers(reader: KafkaReader, partitions: int) -> Sequence[PartitionOpened]:
    """Return the first fact of every partition, in order. Raises: Unavailable, Misconfigured."""
    return await asyncio.gather(*(partition_header(reader, partition) for partition in range(partitions)))


async def partition_header(reader: KafkaReader, partition: int) -> PartitionOpened:
    """Return the first fact of one partition. Raises: Unavailable, Misconfigured."""
    record = await reader.one(partition, 0)
    try:
        fact = None if record is None else _first_fact(record.value or b"")
    except UnknownSchema:
        raise
    except Corrupt:
        fact = None
    if not isinstance(fact, PartitionOpened):
        raise Misconfigured(f"{EVENTS}-{partition}: expected PartitionOpened as the first record: no log of agentlog")
    return fact


def _first_fact(value: bytes) -> Fact | None:
    """Return the first fact of a record. Raises: Corrupt, UnknownSchema."""
    facts = parse_commit(value).get("facts")
    with guarded("commit"):
        return decode_fact(as_object(facts[0], "fact")) if isinstance(facts, list) and facts else None
