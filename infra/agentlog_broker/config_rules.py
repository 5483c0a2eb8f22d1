"""Rules for topic settings: names, defaults, and the values that this server can honour.

A setting without effect on this server (replicas) is accepted only with the value that changes nothing; any other value
is refused, never silently ignored. Compaction is accepted and never done: it permits a server to drop all but the
newest value of a key, and does not require it. Readers of a compacted topic (Faust's tables) see older values too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .errors import Code, Refused
from .settings import BrokerSettings

_LONG_MAX = "9223372036854775807"


@dataclass(frozen=True, slots=True)
class Rule:
    """Rule for one setting: its default, and the objection to a value (None: the value is valid)."""

    default: str
    objection: Callable[[str], str | None]


def _whole(low: int, high: int = (1 << 63) - 1) -> Callable[[str], str | None]:
    def objection(value: str) -> str | None:
        try:
            found = int(value)
        except ValueError:
            return "expected a whole number"
        return None if low <= found <= high else f"expected {low} to {high}"

    return objection


def _one_of(*values: str, why: str = "") -> Callable[[str], str | None]:
    def objection(value: str) -> str | None:
        return None if value in values else f"expected {' or '.join(values)}{why}"

    return objection


def _fixed(value: str, why: str) -> Rule:
    return Rule(value, _one_of(value, why=f": {why}"))


def rules(settings: BrokerSettings) -> dict[str, Rule]:
    """Return the rules for all topic settings, by name. Source: Apache Kafka documentation, "Topic Configs"."""
    return {
        "cleanup.policy": Rule("delete", _one_of("delete", "compact", "compact,delete", "delete,compact")),
        "compression.type": _fixed("producer", "batches are stored as they are sent"),
        "delete.retention.ms": Rule("86400000", _whole(0)),
        "file.delete.delay.ms": Rule("0", _whole(0)),
        "flush.messages": Rule("1", _whole(1)),
        "flush.ms": Rule("0", _whole(0)),
        "index.interval.bytes": Rule("4096", _whole(0)),
        "max.compaction.lag.ms": Rule(_LONG_MAX, _whole(1)),
        "max.message.bytes": Rule(str(settings.max_message_bytes), _whole(0, settings.max_request_bytes - 1)),
        "message.timestamp.after.max.ms": _fixed(_LONG_MAX, "timestamps of producers are not checked"),
        "message.timestamp.before.max.ms": _fixed(_LONG_MAX, "timestamps of producers are not checked"),
        "message.timestamp.type": Rule("CreateTime", _one_of("CreateTime", "LogAppendTime")),
        "min.cleanable.dirty.ratio": Rule("0.5", lambda _: None),
        "min.compaction.lag.ms": Rule("0", _whole(0)),
        "min.insync.replicas": _fixed("1", "there is one replica"),
        "preallocate": _fixed("false", "files are not preallocated by topic"),
        "remote.storage.enable": _fixed("false", "there is no remote storage"),
        "retention.bytes": Rule("-1", _whole(-1)),
        "retention.ms": Rule(str(settings.retention_ms), _whole(-1)),
        "segment.bytes": Rule(str(settings.segment_bytes), _whole(1024, 1 << 31)),
        "segment.index.bytes": Rule("10485760", _whole(4)),
        "segment.jitter.ms": Rule("0", _whole(0)),
        "segment.ms": Rule("604800000", _whole(1)),
        "unclean.leader.election.enable": Rule("false", _one_of("true", "false")),
    }


def check_configs(topic: str, configs: Mapping[str, str | None], settings: BrokerSettings) -> dict[str, str]:
    """Return the settings of a topic that have a value; those of an endless topic must keep every record.

    Raises: Refused, which names setting, value and allowed values.
    """
    known, accepted = rules(settings), dict[str, str]()
    for name, value in configs.items():
        rule = known.get(name)
        if rule is None:
            raise Refused(Code.INVALID_CONFIG, f"{name}: no such topic setting")
        if value is None:
            continue
        objection = rule.objection(value)
        if objection is not None:
            raise Refused(Code.INVALID_CONFIG, f"{name}={value}: {objection}")
        accepted[name] = value
    if topic in settings.endless_topics:
        _demand_endless(topic, accepted, settings)
    return accepted


def _demand_endless(name: str, configs: Mapping[str, str], settings: BrokerSettings) -> None:
    known = rules(settings)
    for setting, wanted in (("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")):
        found = configs.get(setting, known[setting].default)
        if found != wanted:
            raise Refused(Code.POLICY_VIOLATION, f"{name}: {setting}={found}: expected {wanted}: its records must stay")


def forgets_by_age(configs: Mapping[str, str]) -> bool:
    """Return whether retention deletes records. Source: Apache Kafka documentation, "Topic Configs", cleanup.policy."""
    return "delete" in configs.get("cleanup.policy", "delete").split(",")


def number(configs: Mapping[str, str], name: str, settings: BrokerSettings) -> int:
    """Return the effective value of a numeric setting that the store uses."""
    if name in configs:
        return int(configs[name])
    return {"segment.bytes": settings.segment_bytes, "retention.ms": settings.retention_ms, "retention.bytes": -1}[name]
