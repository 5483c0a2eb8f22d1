"""Manifest: a snapshot of the catalog, the segments and the producers, for the next start.

It is replaced as a whole after every cut. `first_wal` is the first write-ahead file to replay on top of it; older files
are leftovers.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from .catalog import Catalog, Topic
from .checksums import crc32
from .disk import Disk
from .errors import Damaged
from .producers import ProducerRow
from .segments import Segment, SegmentRow

FORMAT = 1
NAME = "manifest.json"


class PartitionRow(TypedDict):
    """Partition at the end of its segments, with the `start` at the time of the manifest."""

    uid: int
    start: int
    next: int
    segments: list[SegmentRow]
    producers: list[ProducerRow]


class TopicRow(TypedDict):
    """Topic with its partitions in order."""

    name: str
    configs: dict[str, str]
    partitions: list[PartitionRow]


class GroupRow(TypedDict):
    """Committed offsets of one group."""

    group: str
    rows: list[tuple[str, int, int, str]]


class Manifest(TypedDict):
    """Stored form of the whole snapshot."""

    format: int
    cluster_id: str
    first_wal: int
    durable: tuple[int, int]
    next_uid: int
    next_producer_id: int
    topics: list[TopicRow]
    groups: list[GroupRow]


@dataclass(frozen=True, slots=True)
class Marks:
    """First write-ahead file of a replay, and the position up to which the log is known to have been on disk."""

    first_wal: int
    durable: tuple[int, int]


def segment_directory(data_dir: Path, uid: int) -> Path:
    """Return the directory of the segments of a partition."""
    return data_dir / "segments" / str(uid)


def snapshot(catalog: Catalog, marks: Marks) -> Manifest:
    """Return a snapshot of everything up to the end of the segments."""
    return {
        "format": FORMAT,
        "cluster_id": catalog.cluster_id,
        "first_wal": marks.first_wal,
        "durable": marks.durable,
        "next_uid": catalog.next_uid,
        "next_producer_id": catalog.next_producer_id,
        "topics": [_topic_row(topic) for topic in catalog.topics.values()],
        "groups": [
            {"group": group, "rows": [(t, p, offset, text) for (t, p), (offset, text) in rows.items()]}
            for group, rows in catalog.offsets.items()
        ],
    }


def _topic_row(topic: Topic) -> TopicRow:
    rows: list[PartitionRow] = [
        {
            "uid": partition.uid,
            "start": partition.start,
            "next": partition.cut_next,
            "segments": [segment.row() for segment in partition.segments],
            "producers": partition.cut_producers.rows(),
        }
        for partition in topic.partitions
    ]
    return {"name": topic.name, "configs": topic.configs, "partitions": rows}


def write(data_dir: Path, manifest: Manifest, disk: Disk) -> None:
    """Replace the manifest. Raises: OSError."""
    body = json.dumps(manifest, separators=(",", ":")).encode()
    disk.replace(data_dir / NAME, b"%08x\n%s" % (crc32(body), body))


def read(data_dir: Path, catalog: Catalog) -> Marks | None:
    """Fill the catalog from the manifest and return its marks, None if there is no manifest. Raises: Damaged."""
    path = data_dir / NAME
    if not path.exists():
        return None
    raw = path.read_bytes()
    if raw[:9] != b"%08x\n" % crc32(raw[9:]):
        raise Damaged(path, 0, "the checksum of the manifest does not match")
    manifest: Manifest = json.loads(raw[9:])
    if manifest["format"] != FORMAT:
        raise Damaged(path, 0, f"format {manifest['format']}, this version reads {FORMAT}")
    _fill(data_dir, catalog, manifest)
    return Marks(manifest["first_wal"], (manifest["durable"][0], manifest["durable"][1]))


def _fill(data_dir: Path, catalog: Catalog, manifest: Manifest) -> None:
    catalog.cluster_id = manifest["cluster_id"]
    for row in manifest["topics"]:
        topic = catalog.topics[row["name"]] = Topic(row["name"], {})
        catalog.by_wire_name[row["name"].encode()] = topic
        catalog.configure(topic, row["configs"])
        catalog.add_partitions(topic, [each["uid"] for each in row["partitions"]])
        for partition, each in zip(topic.partitions, row["partitions"], strict=True):
            directory = segment_directory(data_dir, partition.uid)
            partition.start = each["start"]
            partition.segments = [Segment(directory, partition.uid, *segment) for segment in each["segments"]]
            partition.next = partition.high = partition.cut_next = each["next"]
            partition.producers.load(each["producers"])
            partition.cut_producers.load(each["producers"])
    for group in manifest["groups"]:
        catalog.offsets[group["group"]] = {(t, p): (offset, text) for t, p, offset, text in group["rows"]}
    catalog.next_uid = manifest["next_uid"]
    catalog.next_producer_id = manifest["next_producer_id"]
