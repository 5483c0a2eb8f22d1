"""Recovery and check of a whole data directory: the manifest, every frame and every batch are as they were written."""

from .catalog import Catalog
from .errors import Misconfigured
from .lock import DirectoryLock
from .recovery import recover
from .segments import SegmentIndex
from .settings import BrokerSettings


def verify(settings: BrokerSettings) -> dict[str, int]:
    """Recover the directory of a stopped server, check all of its data, and return its counts.

    The recovery is that of a start and may change files. Raises: Damaged, DirectoryInUse, Misconfigured.
    """
    if not settings.data_dir.is_dir():
        raise Misconfigured(f"{settings.data_dir}: no such directory")
    lock = DirectoryLock(settings.data_dir)
    lock.take()
    try:
        catalog = Catalog(settings.producers_per_partition_max, settings.max_message_bytes)
        recover(settings.data_dir, catalog)
        segments = [segment for partition in catalog.partitions.values() for segment in partition.segments]
        for segment in segments:
            SegmentIndex(segment).verify()
        return {
            "topics": len(catalog.topics),
            "partitions": len(catalog.partitions),
            "records": sum(partition.high - partition.start for partition in catalog.partitions.values()),
            "segments": len(segments),
        }
    finally:
        lock.release()
