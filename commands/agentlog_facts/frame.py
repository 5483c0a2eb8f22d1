"""Stream frames on `agentlog.outputs`, their mapping to wire events, and the positions of those events."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentlog_facts.decoding import guarded
from agentlog_facts.ids import RunId
from agentlog_facts.json_value import Json, JsonObject, as_object, dump, dump_object, load, load_object

SLOTS = 4096
"""Slots per record; a position is (generation base + offset) * SLOTS + index."""
SLOTS_A_FRAME = 8
MAX_FRAMES = SLOTS // SLOTS_A_FRAME
STATE_UPDATE = "state_update"
"""Event of a thread's stream: somebody has updated the state. Source: docs/http-api.md, section 12."""
START_CURSORS = frozenset({"0", "-", "-1"})
"""Values of `Last-Event-ID` that ask for a stream from its start. Source: docs/http-api.md, section 11."""


class Frame:
    """One event of a run's output: `event` is a stream mode or a control event, `ns` the subgraph path ("": root).

    Its data is made as values or as JSON, and converted to the other form once, if anybody asks for it.
    """

    __slots__ = ("_data", "_is_read", "_json", "event", "ns")
    __hash__ = None  # type: ignore[assignment]  # its data may be mutable

    def __init__(self, event: str, data: Json, ns: str = "") -> None:
        self.event = event
        self.ns = ns
        self._data = data
        self._is_read = True
        self._json: bytes | None = None

    @classmethod
    def encoded(cls, event: str, json: bytes, ns: str = "") -> "Frame":
        """Return a frame whose data is compact JSON already."""
        frame = cls(event, None, ns)
        frame._json, frame._is_read = json, False
        return frame

    @property
    def data(self) -> Json:
        """Return the data. Raises: ValueError if it was given as JSON that cannot be read."""
        if not self._is_read and self._json is not None:
            self._data, self._is_read = load(self._json), True
        return self._data

    @property
    def json(self) -> bytes:
        """Return the data as JSON. Raises: ValueError if it cannot be written."""
        if self._json is None:
            self._json = dump(self._data)
        return self._json

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and (self.event, self.ns, self.data) == (other.event, other.ns, other.data)

    def __repr__(self) -> str:
        return f"Frame({self.event!r}, {self.data!r}, {self.ns!r})"


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One flush. `n` counts up within the epoch.

    `end` is the event id of the `RunFinished` whose frame is the last one of the record. `of` is the event id of a fact
    that another process than the worker announces; readers drop repeats of it. `release` makes the record a fence: it
    has no frames, and it is acknowledged before the `RunReleased` with that event id is appended. Later flushes of the
    epoch count only if the run still ends in this epoch. An update of the state belongs to no run: `run_id` is empty.
    """

    run_id: RunId
    epoch: int
    n: int
    frames: tuple[Frame, ...]
    end: str | None = None
    of: str | None = None
    release: str | None = None


@dataclass(frozen=True, slots=True)
class WireEvent:
    """Event of the classic SSE streams: its index within the record, SSE event name, and data."""

    index: int
    event: str
    data: Json


def wire_events(frames: Sequence[Frame]) -> list[WireEvent]:
    """Map frames to the events of the classic SSE streams; each frame owns SLOTS_A_FRAME indexes."""
    return [
        WireEvent(number * SLOTS_A_FRAME, f"{frame.event}|{frame.ns}" if frame.ns else frame.event, frame.data)
        for number, frame in enumerate(frames)
    ]


def position(base: int, offset: int, index: int = 0) -> int:
    """Return the position of a wire event, an integer that JavaScript represents exactly."""
    return (base + offset) * SLOTS + index


def event_id(at: int) -> str:
    """Return the SSE id of a position, in the `<number>-<n>` form of the official server."""
    return f"{at // SLOTS}-{at % SLOTS}"


def parse_event_id(text: str) -> int | None:
    """Return the position of an SSE id, None if the text has another form."""
    major, dash, minor = text.partition("-")
    if not dash or not major.isdecimal() or not minor.isdecimal() or int(minor) >= SLOTS:
        return None
    return int(major) * SLOTS + int(minor)


def encode_record(record: FrameRecord) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return the Kafka value and headers of a flush."""
    frames = [dump_object({"event": dump(f.event), "data": f.json, "ns": dump(f.ns)}) for f in record.frames]
    headers = [("run_id", record.run_id.encode()), ("epoch", b"%d" % record.epoch), ("n", b"%d" % record.n)]
    for name, event_id in (("end", record.end), ("of", record.of), ("release", record.release)):
        if event_id is not None:
            headers.append((name, event_id.encode()))
    return b'{"spec":1,"frames":[%s]}' % b",".join(frames), headers


def decode_record(value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> FrameRecord:
    """Return the flush of a Kafka record; raise Corrupt for anything else."""
    with guarded("frame record"):
        named = {name: _text(data) for name, data in headers}
        return FrameRecord(
            run_id=RunId(named["run_id"]),
            epoch=int(named["epoch"]),
            n=int(named["n"]),
            frames=tuple(_frame(as_object(frame, "frame")) for frame in _frames(load_object(value, "frames"))),
            end=named.get("end"),
            of=named.get("of"),
            release=named.get("release"),
        )


def _text(data: bytes | None) -> str:
    if data is None:
        raise ValueError("header: expected bytes")
    return data.decode()


def _frames(stored: JsonObject) -> list[Json]:
    frames = stored.get("frames")
    if not isinstance(frames, list):
        raise ValueError("frames: expected a list")
    return frames


def _frame(stored: JsonObject) -> Frame:
    event, namespace = stored["event"], stored.get("ns", "")
    if not isinstance(event, str) or not isinstance(namespace, str):
        raise ValueError("frame: expected {event, data, ns}")
    return Frame(event, stored["data"], namespace)
