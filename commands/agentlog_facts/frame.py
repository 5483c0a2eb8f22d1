"""Stream frames as they lie on `agentlog.outputs`, the positions of their wire events, and the mapping to them."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentlog_facts.errors import Corrupt
from agentlog_facts.ids import RunId
from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load_object

SLOTS = 4096
"""Slots of a record; a position is (generation base + offset) * SLOTS + index."""
SLOTS_A_FRAME = 8
MAX_FRAMES = SLOTS // SLOTS_A_FRAME
START_CURSORS = frozenset({"0", "-", "-1"})
"""Values of `Last-Event-ID` that mean: from the start. Source: docs/http-api.md, section 11."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One thing a run said: `event` is the stream mode or a control event, `ns` the subgraph path ("" at the root)."""

    event: str
    data: Json
    ns: str = ""


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One flush. `n` counts up within the epoch; `end` names the `RunFinished` (event_id) whose frame ends the record;
    `of` names the fact that somebody else than the worker announces here (readers drop repeats).

    `release` names the `RunReleased` that is about to end the epoch: a fence, without frames, acknowledged before that
    fact is appended. What the epoch says behind it counts only if the run still ends in this very epoch.
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
    """What a client of the classic streams gets: `index` within the record, SSE event name, data."""

    index: int
    event: str
    data: Json


def wire_events(frames: Sequence[Frame]) -> list[WireEvent]:
    """Map frames to the events of the classic SSE streams; each frame owns SLOTS_A_FRAME indexes."""
    return [
        WireEvent(place * SLOTS_A_FRAME, f"{frame.event}|{frame.ns}" if frame.ns else frame.event, frame.data)
        for place, frame in enumerate(frames)
    ]


def position(base: int, offset: int, index: int = 0) -> int:
    """Return the position of a wire event; it fits the whole numbers that JavaScript holds exactly."""
    return (base + offset) * SLOTS + index


def event_id(at: int) -> str:
    """Return the SSE id of a position, in the `<number>-<n>` form of the official server."""
    return f"{at // SLOTS}-{at % SLOTS}"


def parse_event_id(text: str) -> int | None:
    """Return the position that an SSE id names, None when it is no id of ours."""
    major, dash, minor = text.partition("-")
    if not dash or not major.isdecimal() or not minor.isdecimal() or int(minor) >= SLOTS:
        return None
    return int(major) * SLOTS + int(minor)


def encode_record(record: FrameRecord) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return the Kafka value and headers of a flush."""
    frames: list[Json] = [{"event": f.event, "data": f.data, "ns": f.ns} for f in record.frames]
    headers = [("run_id", record.run_id.encode()), ("epoch", b"%d" % record.epoch), ("n", b"%d" % record.n)]
    for name, event_id in (("end", record.end), ("of", record.of), ("release", record.release)):
        if event_id is not None:
            headers.append((name, event_id.encode()))
    return dump({"spec": 1, "frames": frames}), headers


def decode_record(value: bytes, headers: Sequence[tuple[str, bytes]]) -> FrameRecord:
    """Return the flush of a Kafka record; raise Corrupt for anything else."""
    named = {name: data.decode() for name, data in headers}
    try:
        return FrameRecord(
            run_id=RunId(named["run_id"]),
            epoch=int(named["epoch"]),
            n=int(named["n"]),
            frames=tuple(_frame(as_object(frame, "frame")) for frame in _frames(load_object(value, "frames"))),
            end=named.get("end"),
            of=named.get("of"),
            release=named.get("release"),
        )
    except (KeyError, ValueError) as error:
        raise Corrupt(f"frame record: {error!r}") from error


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
