"""Which partition a key belongs to: murmur2, as Java's and aiokafka's default partitioners compute it."""

from aiokafka.partitioner import murmur2


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key in a topic of this many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
