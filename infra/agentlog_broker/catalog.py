"""Catalog of all stored state besides records: topics, their settings, group offsets, producer ids.

Changes are operations in the write-ahead log. A replay of operations that the manifest already holds changes nothing,
because uids are never reused and later values win.
"""

import json
import uuid
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from .errors import BrokerError
from .partitions import Partition

OffsetRow = tuple[str, int, int, str]


class TopicCreated(TypedDict):
    """A topic was created, or got more partitions; `uids` are those of the new partitions."""

    op: Literal["topic_created", "partitions_added"]
    name: str
    uids: list[int]
    configs: dict[str, str]


class TopicDeleted(TypedDict):
    """A topic was deleted, with its partitions."""

    op: Literal["topic_deleted"]
    name: str
    uids: list[int]


class ConfigsSet(TypedDict):
    """The settings of a topic were replaced; `configs` holds those that differ from the defaults."""

    op: Literal["configs_set"]
    uid: int
    configs: dict[str, str]


class StartMoved(TypedDict):
    """Records below an offset were deleted; `starts` lists partition uid and offset."""

    op: Literal["start_moved"]
    starts: list[tuple[int, int]]


class OffsetsCommitted(TypedDict):
    """A group committed offsets; `rows` lists topic, partition, offset and metadata."""

    op: Literal["offsets_committed"]
    group: str
    rows: list[OffsetRow]


class ProducerIdsTaken(TypedDict):
    """Producer ids below this one may have been assigned."""

    op: Literal["producer_ids_taken"]
    below: int


Operation = TopicCreated | TopicDeleted | ConfigsSet | StartMoved | OffsetsCommitted | ProducerIdsTaken
_KNOWN = {
    "topic_created",
    "partitions_added",
    "topic_deleted",
    "configs_set",
    "start_moved",
    "offsets_committed",
    "producer_ids_taken",
}


def pack(operation: Operation) -> bytes:
    """Return the stored form of an operation."""
    return json.dumps(operation, separators=(",", ":")).encode()


def unpack(data: bytes) -> Operation:
    """Read a stored operation. Raises: BrokerError for an operation of a newer version."""
    operation: Operation = json.loads(data)
    if operation["op"] not in _KNOWN:
        raise BrokerError(f"operation {operation['op']!r} is not known to this version")
    return operation


@dataclass(slots=True)
class Topic:
    """Topic; `configs` holds the settings that differ from the defaults."""

    name: str
    configs: dict[str, str]
    partitions: list[Partition] = field(default_factory=list[Partition])
    log_append_time: bool = False
    max_message_bytes: int = 0

    @property
    def uid(self) -> int:
        """Return the number that no other topic of the same name gets."""
        return self.partitions[0].uid


class Catalog:
    """Topics, group offsets and counters, as changed by the operations."""

    def __init__(self, producers_max: int, max_message_bytes: int) -> None:
        self._producers_max = producers_max
        self._max_message_bytes = max_message_bytes
        self.cluster_id = uuid.uuid4().hex
        self.topics: dict[str, Topic] = {}
        self.by_wire_name: dict[bytes, Topic] = {}
        self.partitions: dict[int, Partition] = {}
        self.offsets: dict[str, dict[tuple[str, int], tuple[int, str]]] = {}
        self.next_uid = 1
        self.next_producer_id = 1

    def partition(self, topic: str, index: int) -> Partition | None:
        """Return a partition, None if there is none."""
        found = self.topics.get(topic)
        return found.partitions[index] if found is not None and 0 <= index < len(found.partitions) else None

    def apply(self, operation: Operation) -> list[Partition]:
        """Apply an operation; return the partitions that it has deleted."""
        match operation["op"]:
            case "topic_created" | "partitions_added":
                self._add(operation)
            case "topic_deleted":
                return self._delete(operation)
            case "configs_set":
                self._configure(operation)
            case "start_moved":
                self._move_starts(operation)
            case "offsets_committed":
                group = self.offsets.setdefault(operation["group"], {})
                group.update({(topic, index): (offset, text) for topic, index, offset, text in operation["rows"]})
            case "producer_ids_taken":
                self.next_producer_id = max(self.next_producer_id, operation["below"])
        return []

    def _add(self, operation: TopicCreated) -> None:
        if operation["uids"][0] < self.next_uid:
            return
        topic = self.topics.get(operation["name"])
        if topic is None:
            topic = self.topics[operation["name"]] = Topic(operation["name"], {})
            self.by_wire_name[operation["name"].encode()] = topic
            self.configure(topic, operation["configs"])
        self.add_partitions(topic, operation["uids"])

    def add_partitions(self, topic: Topic, uids: list[int]) -> None:
        """Add partitions to a topic."""
        for uid in uids:
            partition = Partition(uid, topic.name, len(topic.partitions), self._producers_max)
            topic.partitions.append(partition)
            self.partitions[uid] = partition
            self.next_uid = max(self.next_uid, uid + 1)

    def _delete(self, operation: TopicDeleted) -> list[Partition]:
        # Also in a replay: offsets that were committed for a later topic of this name follow in the log.
        for rows in self.offsets.values():
            for key in [key for key in rows if key[0] == operation["name"]]:
                del rows[key]
        topic = self.topics.get(operation["name"])
        if topic is None or topic.uid != operation["uids"][0]:
            return []
        del self.topics[topic.name], self.by_wire_name[topic.name.encode()]
        for partition in topic.partitions:
            del self.partitions[partition.uid]
            partition.gone = True
        return topic.partitions

    def _configure(self, operation: ConfigsSet) -> None:
        partition = self.partitions.get(operation["uid"])
        if partition is not None:
            self.configure(self.topics[partition.topic], operation["configs"])

    def configure(self, topic: Topic, configs: dict[str, str]) -> None:
        """Replace the settings of a topic, and the two values that every append needs."""
        topic.configs = dict(configs)
        topic.log_append_time = configs.get("message.timestamp.type") == "LogAppendTime"
        topic.max_message_bytes = int(configs.get("max.message.bytes", self._max_message_bytes))

    def _move_starts(self, operation: StartMoved) -> None:
        for uid, offset in operation["starts"]:
            partition = self.partitions.get(uid)
            if partition is not None:
                partition.start = max(partition.start, offset)
