"""Where the positions of each partition begin, as its first record says: the same for events and outputs."""

import asyncio
from collections.abc import Mapping

from agentlog_facts.errors import Misconfigured
from agentlog_facts.json_value import as_object
from agentlog_facts.system import PartitionOpened
from agentlog_facts.vocabulary import decode_fact, parse_commit
from agentlog_infra.kafka_connection import EVENTS
from agentlog_infra.kafka_reader import KafkaReader


async def partition_bases(reader: KafkaReader, partitions: int) -> Mapping[int, int]:
    """Return the base of every partition, from `PartitionOpened`. Raises: Unavailable, Misconfigured."""
    found = await asyncio.gather(*(_base(reader, partition) for partition in range(partitions)))
    return dict(enumerate(found))


async def _base(reader: KafkaReader, partition: int) -> int:
    async for record in reader.read(partition, 0, 1):
        facts = parse_commit(record.value or b"").get("facts")
        fact = decode_fact(as_object(facts[0], "fact")) if isinstance(facts, list) and facts else None
        if isinstance(fact, PartitionOpened):
            return fact.base
    raise Misconfigured(
        f"{EVENTS}-{partition}: expected PartitionOpened as the first record; run `agentlog topics apply`"
    )
