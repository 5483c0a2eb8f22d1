"""Where the positions of each partition begin, as its first record says: the same for events and outputs."""

import asyncio
from collections.abc import Mapping

from agentlog_facts.errors import Misconfigured
from agentlog_facts.json_value import as_object
from agentlog_facts.system import PartitionOpened
from agentlog_facts.vocabulary import decode_fact, parse_commit
from agentlog_infra.kafka.connection import EVENTS
from agentlog_infra.kafka.reader import KafkaReader


async def partition_bases(reader: KafkaReader, partitions: int) -> Mapping[int, int]:
    """Return the base of every partition, from `PartitionOpened`. Raises: Unavailable, Misconfigured."""
    found = await asyncio.gather(*(opening(reader, partition) for partition in range(partitions)))
    return {number: opened.base for number, opened in enumerate(found)}


async def opening(reader: KafkaReader, partition: int) -> PartitionOpened:
    """Return what a partition of `events` begins with. Raises: Unavailable, Misconfigured."""
    record = await reader.one(partition, 0)
    facts = None if record is None else parse_commit(record.value or b"").get("facts")
    fact = decode_fact(as_object(facts[0], "fact")) if isinstance(facts, list) and facts else None
    if not isinstance(fact, PartitionOpened):
        raise Misconfigured(f"{EVENTS}-{partition}: expected PartitionOpened as the first record: no log of agentlog")
    return fact
