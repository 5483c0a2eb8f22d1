"""Facts of LangGraph checkpoints, which store only changes, so that a thread grows linearly; and the fold of channels.

The facts of a claimed run are on stream `run-<run_id>`, with its epoch; all others are on `thread-<thread_id>`.
"""

from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal, NamedTuple, TypeAlias, TypeVar, assert_never

from agentlog_facts.errors import Corrupt
from agentlog_facts.growing_list import GrowingList
from agentlog_facts.ids import RunId, Stream, ThreadId
from agentlog_facts.json_value import Json, JsonObject, as_object

Encoded: TypeAlias = Json
"""A string, number, boolean or null is encoded as itself. Any other value is {"json": value} if JSON represents it
exactly, {"message": fields} for a chat message (its field `type` names its class), {"items": [encoded, ...]} for a list
that may grow, or {"type": tag, "base64": text} for a value that only LangGraph's serializer can represent. Since spec 2
there are {"interrupt": {id, value}} and {"send": {node, arg}}, whose `value` and `arg` are encoded too.
"""
ChannelKind: TypeAlias = Literal["full", "append", "empty"]
VersionKey: TypeAlias = tuple[ThreadId, str, str, str]
"""thread_id, checkpoint_ns, channel, version."""

K = TypeVar("K")
W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint was saved. `checkpoint` is LangGraph's dict without `channel_values`.

    `channels` lists the changed channels only, as {channel, version, kind, ...}. Kind `full` has a `value`. Kind
    `append` has `items`, which follow the list that `base` {version, length, stream} names. Kind `empty` has no value.
    `version` is `str()` of the version in `channel_versions`. Values and items are encoded
    (`checkpoint.Encoded`): a scalar as itself, else {"json": value} if JSON represents the value exactly,
    {"message": fields}, or {"type": tag, "base64": bytes of LangGraph's serializer}; a list that may grow is
    {"items": [encoded, ...]}.
    `run_id` is the run whose claim wrote the checkpoint, None without a claim.
    """

    thread_id: ThreadId
    run_id: RunId | None
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    checkpoint: JsonObject
    metadata: JsonObject
    channels: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class WritesSaved:
    """Pending writes of one task were saved; `writes` lists {index, channel, value} with encoded values."""

    thread_id: ThreadId
    run_id: RunId | None
    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    writes: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class CheckpointsHidden:
    """These checkpoints, as {ns, checkpoint_id}, were hidden; `reason` is `prune` or `delete_for_runs`."""

    thread_id: ThreadId
    checkpoints: tuple[Json, ...]
    reason: str


CheckpointFact: TypeAlias = CheckpointSaved | WritesSaved | CheckpointsHidden


class CheckpointKey(NamedTuple):
    """Identity of a checkpoint."""

    thread_id: ThreadId
    checkpoint_ns: str
    checkpoint_id: str


@dataclass(frozen=True, slots=True)
class ChannelEntry:
    """Statement of a fact on `stream` about a channel: a whole value, items to append, or no value.

    `payload` is the encoded value or the list of items. The items follow the list of `base_length` items in version
    `base_version` of the channel, as stated on `base_stream`.
    """

    channel: str
    version: str
    stream: Stream
    kind: ChannelKind
    payload: Json
    base_version: str | None = None
    base_stream: Stream | None = None
    base_length: int | None = None


@dataclass(frozen=True, slots=True)
class EncodedChannel:
    """Value of a channel in one version, with append chains resolved; channels of kind `empty` are left out.

    Kind `list`: the channel was stored as {"items": [...]} plus appended items; `items` holds all of them. Kind
    `value`: `value` holds any other value. `version` and `stream` name the entry, as the base of a later append does.
    `full_length` counts the items of the full copy at the root of the chain, `parts` the appends after it. Versions of
    one chain share the memory of their `items`.
    """

    kind: Literal["value", "list"]
    version: str
    stream: Stream
    value: Encoded = None
    items: Sequence[Encoded] = ()
    full_length: int = 0
    parts: int = 0


def channel_versions(checkpoint: JsonObject) -> dict[str, str]:
    """Return the version of each channel that LangGraph's dict of a checkpoint names."""
    named = as_object(checkpoint.get("channel_versions", {}), "channel_versions")
    return {channel: str(version) for channel, version in named.items()}


def channel_entries(fact: CheckpointSaved, stream: Stream) -> Iterator[ChannelEntry]:
    """Yield the statements of a fact on `stream` about channels. Raises: ValueError, Corrupt."""
    for stored in fact.channels:
        yield _entry(as_object(stored, "channel"), stream)


def write_entries(fact: WritesSaved) -> Iterator[tuple[int, str, Encoded]]:
    """Yield index, channel and encoded value of each write. Raises: ValueError, Corrupt."""
    for stored in fact.writes:
        write = as_object(stored, "write")
        index = write["index"]
        if not isinstance(index, int):
            raise Corrupt(f"write of task {fact.task_id}: expected an index, found {index!r}")
        yield index, str(write["channel"]), write["value"]


def hidden_checkpoints(fact: CheckpointsHidden) -> Iterator[CheckpointKey]:
    """Yield the checkpoints that a fact hides. Raises: ValueError."""
    for stored in fact.checkpoints:
        named = as_object(stored, "hidden checkpoint")
        yield CheckpointKey(fact.thread_id, str(named["ns"]), str(named["checkpoint_id"]))


def put_write(writes: dict[K, W], key: K, index: int, write: W) -> None:
    """Add a write. A reserved (negative) index replaces an earlier write of the key; any other index keeps it.

    Source: langgraph.checkpoint.base, `WRITES_IDX_MAP`.
    """
    if index < 0 or key not in writes:
        writes[key] = write


def evolve(base: EncodedChannel | None, entry: ChannelEntry) -> EncodedChannel | None:
    """Return the channel in the version of `entry`, None if it has no value then.

    `base` is the version to which an append adds items. Raises: Corrupt if it is not the list that the entry names.
    """
    match entry.kind:
        case "empty":
            return None
        case "full":
            return _full(entry)
        case "append":
            return _appended(base, entry)
        case _:
            assert_never(entry.kind)


class ChannelHistory:
    """Versions of channels in order of acceptance. A repeated statement counts for later checkpoints only."""

    def __init__(self) -> None:
        self._versions: dict[VersionKey, list[tuple[int, EncodedChannel | None]]] = {}

    def fold(self, thread_id: ThreadId, ns: str, entry: ChannelEntry, seq: int) -> EncodedChannel | None:
        """Fold one entry that was accepted at `seq`, after all others, and return the channel. Raises: Corrupt."""
        base = (thread_id, ns, entry.channel, entry.base_version or "")
        channel = evolve(self._base(base, entry.base_stream) if entry.kind == "append" else None, entry)
        self._versions.setdefault((thread_id, ns, entry.channel, entry.version), []).append((seq, channel))
        return channel

    def remember(self, key: VersionKey, channel: EncodedChannel | None) -> None:
        """Add a version that was folded elsewhere, unless it is known."""
        self._versions.setdefault(key, [(0, channel)])

    def place(self, key: VersionKey, seq: int, channel: EncodedChannel | None) -> None:
        """Add a version that was accepted at `seq` and folded elsewhere."""
        insort(self._versions.setdefault(key, []), (seq, channel), key=itemgetter(0))

    def forget(self, key: VersionKey) -> None:
        """Drop a version."""
        self._versions.pop(key, None)

    def has_list(self, key: VersionKey, stream: Stream) -> bool:
        """Return whether this version, as stated on `stream`, is a list that an append may name as its base."""
        base = self._base(key, stream)
        return base is not None and base.kind == "list"

    def knows(self, key: VersionKey) -> bool:
        """Return whether a version was folded or remembered."""
        return key in self._versions

    def held(self, thread_id: ThreadId, ns: str, versions: Mapping[str, str], seq: int) -> dict[str, EncodedChannel]:
        """Return the channels of a checkpoint that was accepted at `seq`, without those that have no value."""
        found: dict[str, EncodedChannel] = {}
        for name, version in versions.items():
            for stated_at, channel in reversed(self._versions.get((thread_id, ns, name, version), ())):
                if stated_at <= seq:
                    if channel is not None:
                        found[name] = channel
                    break
        return found

    def _base(self, key: VersionKey, stream: Stream | None) -> EncodedChannel | None:
        for _, channel in reversed(self._versions.get(key, ())):
            if channel is not None and channel.stream == stream:
                return channel
        return None


def _entry(stored: JsonObject, stream: Stream) -> ChannelEntry:
    channel, version, kind = str(stored["channel"]), str(stored["version"]), stored["kind"]
    match kind:
        case "full":
            return ChannelEntry(channel, version, stream, "full", stored.get("value"))
        case "append":
            base = as_object(stored["base"], "base")
            named, on, length = str(base["version"]), Stream(str(base["stream"])), base.get("length")
            known = length if isinstance(length, int) else None
            return ChannelEntry(channel, version, stream, "append", stored.get("items"), named, on, known)
        case "empty":
            return ChannelEntry(channel, version, stream, "empty", None)
        case _:
            raise Corrupt(f"channel {channel} {version}: expected kind full, append or empty, found {kind}")


def _full(entry: ChannelEntry) -> EncodedChannel:
    value = entry.payload
    if isinstance(value, dict) and len(value) == 1 and isinstance(items := value.get("items"), list):
        return EncodedChannel("list", entry.version, entry.stream, None, GrowingList(items), len(items))
    return EncodedChannel("value", entry.version, entry.stream, value)


def _appended(base: EncodedChannel | None, entry: ChannelEntry) -> EncodedChannel:
    items = entry.payload
    if base is None or base.kind != "list" or len(base.items) != entry.base_length or not isinstance(items, list):
        raise Corrupt(
            f"channel {entry.channel} {entry.version}: expected {entry.base_length} items of {entry.base_version} "
            f"on {entry.base_stream} to append to, found {_described(base)}"
        )
    shorter = base.items if isinstance(base.items, GrowingList) else GrowingList(base.items)
    longer = shorter.followed_by(items)
    return EncodedChannel("list", entry.version, entry.stream, None, longer, base.full_length, base.parts + 1)


def _described(base: EncodedChannel | None) -> str:
    if base is None:
        return "nothing"
    return f"{len(base.items)} items" if base.kind == "list" else "a value"
