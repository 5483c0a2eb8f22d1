"""Decides what a channel held in a checkpoint: finds the row of its version, follows appended items to their base."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from agentlog_facts.checkpoint_ports import EncodedChannel
from agentlog_facts.errors import Corrupt
from agentlog_facts.ids import Stream
from agentlog_facts.json_value import Json, load

VersionKey = tuple[str, str, str, str]
"""thread_id, checkpoint_ns, channel, version."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A row of `channels`; several may share a version (branches), so `seq`, the order of acceptance, decides."""

    key: VersionKey
    seq: int
    stream: str
    kind: str
    base_stream: str | None
    base_version: str | None
    payload: bytes


@dataclass(slots=True)
class ChannelChains:
    """Resolves versions; each row is decoded once, however many checkpoints show it."""

    _rows: dict[VersionKey, list[StoredVersion]] = field(default_factory=dict[VersionKey, list[StoredVersion]])
    _resolved: dict[tuple[VersionKey, int], EncodedChannel | None] = field(
        default_factory=dict[tuple[VersionKey, int], EncodedChannel | None]
    )

    @classmethod
    def of(cls, rows: Iterable[StoredVersion]) -> "ChannelChains":
        """Take all rows that a resolution may need."""
        chains = cls()
        for row in sorted(rows, key=lambda row: row.seq):
            chains._rows.setdefault(row.key, []).append(row)
        return chains

    def channels(self, thread_id: str, ns: str, versions: Mapping[str, str], seq: int) -> dict[str, EncodedChannel]:
        """Return what the channels held for a checkpoint accepted at `seq`; those without a value are left out."""
        found: dict[str, EncodedChannel] = {}
        for channel, version in versions.items():
            row = self._last((thread_id, ns, channel, version), seq)
            value = None if row is None else self._value(row)
            if value is not None:
                found[channel] = value
        return found

    def _last(self, key: VersionKey, seq: int, stream: str | None = None) -> StoredVersion | None:
        """Return the row that was accepted last, not after `seq`."""
        rows = self._rows.get(key, ())
        fitting = (row for row in reversed(rows) if row.seq <= seq and stream in (None, row.stream))
        return next(fitting, None)

    def _value(self, row: StoredVersion) -> EncodedChannel | None:
        chain = [row]
        while (chain[-1].key, chain[-1].seq) not in self._resolved and chain[-1].kind == "append":
            chain.append(self._base(chain[-1]))
        value = self._root(chain.pop())
        for appended in reversed(chain):
            value = self._resolved[appended.key, appended.seq] = _longer(value, appended)
        return value

    def _root(self, row: StoredVersion) -> EncodedChannel | None:
        at = (row.key, row.seq)
        if at not in self._resolved:
            self._resolved[at] = None if row.kind == "empty" else _full(row)
        return self._resolved[at]

    def _base(self, row: StoredVersion) -> StoredVersion:
        thread_id, ns, channel, _ = row.key
        base = self._last((thread_id, ns, channel, row.base_version or ""), row.seq - 1, row.base_stream)
        if base is None:
            raise Corrupt(f"channel {channel} of {thread_id}: expected base {row.base_version}, found nothing")
        return base


def _full(row: StoredVersion) -> EncodedChannel:
    value = load(row.payload)
    version, stream = row.key[3], Stream(row.stream)
    if isinstance(value, dict) and isinstance(items := value.get("items"), list) and len(value) == 1:
        return EncodedChannel("list", version, stream, items=tuple(items), full_length=len(items))
    return EncodedChannel("value", version, stream, value=value)


def _longer(base: EncodedChannel | None, row: StoredVersion) -> EncodedChannel:
    items: Json = load(row.payload)
    if base is None or base.kind != "list" or not isinstance(items, list):
        raise Corrupt(f"channel {row.key[2]} of {row.key[0]}: expected items to append to a list")
    longer = (*base.items, *items)
    return replace(base, version=row.key[3], stream=Stream(row.stream), items=longer, parts=base.parts + 1)
