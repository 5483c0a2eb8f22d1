"""Required settings of each topic, and the differences that could lose history."""

from collections.abc import Mapping
from dataclasses import dataclass

from agentlog_facts.topics import BLOBS, EVENTS, OUTPUTS
from agentlog_infra.kafka.producer import MAX_REQUEST_BYTES
from agentlog_infra.settings import Settings

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
OPENING = "opening"
"""Not a setting of Kafka: the first record of each partition of `events`."""

_FIXED = {
    "partitions": "the partitions of a keyed topic are fixed at its creation; set AGENTLOG_PARTITIONS to theirs",
    "replication.factor": "add replicas with kafka-reassign-partitions.sh, or set AGENTLOG_REPLICATION_FACTOR",
}
"""Settings that `agentlog topics apply` cannot change, and the remedy for each."""
_DEFAULTS = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
    "max.message.bytes": "1048588",
    "min.insync.replicas": "1",
    "message.timestamp.type": "CreateTime",
}
_AT_LEAST = ("replication.factor", "min.insync.replicas", "max.message.bytes")


@dataclass(frozen=True, slots=True)
class TopicChange:
    """One difference. `found` is None if the item is missing; a role may run in spite of a `safe` one.

    `hidden`: the server does not show the setting, so it may be right or wrong.
    """

    topic: str
    setting: str
    found: str | None
    needed: str
    safe: bool = False
    hidden: bool = False

    def __str__(self) -> str:
        """Name topic, setting, value found and value needed."""
        least = "at least " if self.setting in _AT_LEAST else ""
        return f"topic {self.topic}: {self.setting} is {self.shown}, needed {least}{self.needed}"

    @property
    def shown(self) -> str:
        """Return the value found, or why there is none."""
        return "not shown" if self.hidden else self.found or "missing"

    @property
    def requirement(self) -> str:
        """Return topic, setting and value needed, in the form of `KafkaSettingsAccepted`."""
        return f"{self.topic} {self.setting}={self.needed}"

    @property
    def obstacle(self) -> str | None:
        """Return why `apply` cannot change it, and the remedy; None if it can."""
        if self.hidden:
            return f"learn its value from the operator of this Kafka, then set AGENTLOG_KAFKA_ACCEPT={self.setting}"
        return None if self.found is None else _FIXED.get(self.setting)

    @property
    def fix(self) -> str:
        """Return the remedy."""
        return self.obstacle or "agentlog topics apply"


def wanted(settings: Settings) -> Mapping[str, Mapping[str, str]]:
    """Return the settings that each topic must have. Source: Apache Kafka documentation, "Topic Configs"."""
    replicas = {"min.insync.replicas": str(settings.min_insync_replicas)}
    history = {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(MAX_REQUEST_BYTES),
    }
    stamped = {"message.timestamp.type": "LogAppendTime"}
    return {
        EVENTS: history | replicas | stamped,
        BLOBS: history | replicas,
        OUTPUTS: {
            "cleanup.policy": "delete",
            "retention.ms": str(settings.outputs_retention_ms),
            "max.message.bytes": str(MAX_MESSAGE_BYTES),
        }
        | replicas,
    }


def shape_changes(topic: str, partitions: int, replicas: int, settings: Settings) -> list[TopicChange]:
    """Compare the number of partitions, and of replicas of the partition that has fewest."""
    changes: list[TopicChange] = []
    if partitions != settings.partitions:
        changes.append(TopicChange(topic, "partitions", str(partitions), str(settings.partitions)))
    if replicas < settings.replication_factor:
        needed = str(settings.replication_factor)
        changes.append(TopicChange(topic, "replication.factor", str(replicas), needed, safe=topic == OUTPUTS))
    return changes


def config_changes(topic: str, found: Mapping[str, str | None], settings: Settings) -> list[TopicChange]:
    """Compare the settings in force, defaults of the cluster included."""
    return [
        TopicChange(
            topic,
            setting,
            found.get(setting),
            needed,
            safe=topic == OUTPUTS or (found.get(setting) is None and setting in settings.kafka_accept),
            hidden=found.get(setting) is None,
        )
        for setting, needed in wanted(settings)[topic].items()
        if not _suffices(setting, found.get(setting), needed)
    ]


def unlike_default(topic: str, settings: Settings) -> Mapping[str, str]:
    """Return the required settings that Apache Kafka does not have by default; services often refuse the others.

    Source: Apache Kafka documentation, "Topic Configs".
    """
    return {
        name: needed for name, needed in wanted(settings)[topic].items() if not _suffices(name, _DEFAULTS[name], needed)
    }


def _suffices(setting: str, found: str | None, needed: str) -> bool:
    if setting in _AT_LEAST and found is not None:
        return int(found) >= int(needed)
    return found == needed


def strimzi_manifests(settings: Settings) -> str:
    """Return the three topics as KafkaTopic resources in YAML. Source: Strimzi documentation, "KafkaTopic"."""
    parts: list[str] = []
    for topic, configs in wanted(settings).items():
        lines = [
            "apiVersion: kafka.strimzi.io/v1",
            "kind: KafkaTopic",
            "metadata:",
            f"  name: {topic}",
            "  labels:",
            "    strimzi.io/cluster: my-cluster  # the name of your Kafka resource",
            "spec:",
            f"  partitions: {settings.partitions}",
            f"  replicas: {settings.replication_factor}",
            "  config:",
            *(f'    {name}: "{value}"' for name, value in configs.items()),
        ]
        parts.append("\n".join(lines))
    return "\n---\n".join(parts)
