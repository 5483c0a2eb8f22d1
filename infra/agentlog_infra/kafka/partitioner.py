"""Partitioner of keyed topics: murmur2, as in the default partitioners of Java and aiokafka."""

from aiokafka.partitioner import murmur2


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key in a topic of this many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
