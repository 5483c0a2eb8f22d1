"""Checksums: CRC-32C inside Kafka's batches, CRC-32 around everything that this server stores."""

from collections.abc import Callable
from importlib import import_module
from zlib import crc32

__all__ = ["crc32", "crc32c"]

# aiokafka has a compiled CRC-32C, but no types for it.
crc32c: Callable[[bytes | bytearray | memoryview], int] = import_module("aiokafka.record.util").calc_crc32c
