"""Reader of a recorded log for the projector: partitions from one file, blobs from another."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.histories.files import Stored, read_records

from agentlog_facts.envelope import Draft, LogPosition
from agentlog_facts.errors import Corrupt
from agentlog_facts.json_value import Json, load
from agentlog_facts.ports import RawRecord
from agentlog_infra.kafka.event_log import resolve


class RecordedBlobs:
    """Implements `ports.Blobs` over the recorded parts."""

    def __init__(self, parts: Sequence[Stored]) -> None:
        self._values: defaultdict[str, bytes] = defaultdict(bytes)
        whole: set[tuple[bytes | None, bytes]] = set()
        for one in parts:
            part = dict(one.headers)["part"]
            if (one.key, part) not in whole:  # a value may be written twice
                whole.add((one.key, part))
                self._values[(one.key or b"").decode()] += one.value or b""

    async def read(self, sha256: str) -> Json:
        """Return a value after checking its digest."""
        if hashlib.sha256(self._values[sha256]).hexdigest() != sha256:
            raise Corrupt(f"blob {sha256}: not as it was recorded")
        return load(self._values[sha256])


class RecordedLog:
    """Implements `ports.EventTail`."""

    def __init__(self, folder: Path) -> None:
        self._partitions: defaultdict[int, list[RawRecord]] = defaultdict(list)
        for one in read_records(folder / "events.jsonl"):
            at = datetime.fromtimestamp(one.timestamp / 1000, UTC)
            self._partitions[one.partition].append(
                RawRecord(LogPosition(one.partition, one.offset), one.key, one.value, at)
            )
        self._blobs = RecordedBlobs(read_records(folder / "blobs.jsonl"))
        self._positions: dict[int, int] = {}

    def seek(self, partition: int, offset: int) -> None:
        """Continue reading at `offset`."""
        self._positions[partition] = offset

    def drop(self, partition: int) -> None:
        """Stop reading a partition."""
        self._positions.pop(partition, None)

    async def poll(self, max_records: int, patience: timedelta) -> Sequence[RawRecord]:
        """Return the next records."""
        found: list[RawRecord] = []
        for partition, position in self._positions.items():
            found += self._partitions[partition][position : position + max_records - len(found)]
        for raw in found:
            self._positions[raw.place.partition] = raw.place.offset + 1
        return found

    async def ends(self) -> Mapping[int, int]:
        """Return the ends of the partitions."""
        return {partition: len(records) for partition, records in self._partitions.items()}

    async def resolve(self, raw: RawRecord) -> Draft:
        """Decode a record."""
        return await resolve(raw, self._blobs)
