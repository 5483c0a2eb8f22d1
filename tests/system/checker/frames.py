"""What a reader of a run's stream has to be told: the flushes of live attempts in log order, nothing of late ones.

An epoch that was taken away ends where `agentlog.outputs` says that its `RunReleased` is coming; `agentlog.events` says
whether it came.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.system.checker.fold import Judged
from tests.system.checker.records import Record, Value


@dataclass
class Told:
    """The stream of a run as the log demands it; `late` counts the flushes that nobody may see."""

    events: list[tuple[str, Value]] = field(default_factory=list[tuple[str, Value]])
    late: int = 0


def releases(judged: Iterable[Judged]) -> dict[str, tuple[str, int]]:
    """Return event id -> run and epoch of every `RunReleased` that took a claim away and left the run to others."""
    found: dict[str, tuple[str, int]] = {}
    for one in judged:
        kinds = {kind for kind, _ in one.facts} if one.verdict == "accepted" else set[str]()
        for kind, data in one.facts if "RunDeleted" not in kinds else ():
            if kind == "RunReleased" and kind in kinds and isinstance(epoch := data["epoch"], int):
                found[str(one.record.value["event_id"])] = (str(data["run_id"]), epoch)
    return found


def unfenced_releases(judged: Iterable[Judged], outputs: Sequence[Record]) -> list[str]:
    """Return the epochs that were taken away without a word on the outputs: what they still said cannot be told."""
    fences = {record.headers.get("release") for record in outputs}
    return [
        f"run {run_id} was released from epoch {epoch} without a fence on the outputs"
        for event_id, (run_id, epoch) in releases(judged).items()
        if event_id not in fences
    ]


def streams(judged: Iterable[Judged], outputs: Sequence[Record]) -> dict[str, Told]:
    """Return run -> what its stream has to tell."""
    judged = list(judged)
    ends = {str(one.record.value["event_id"]) for one in judged if one.verdict == "accepted"}
    released = set(releases(judged).values())
    over: set[tuple[str, int]] = set()
    last: dict[str, tuple[int, int]] = {}
    stopped: dict[str, int] = {}
    found: dict[str, Told] = {}
    for record in outputs:
        run_id, epoch = record.headers.get("run_id"), record.headers.get("epoch")
        if run_id is None or epoch is None or "of" in record.headers:
            continue
        if "release" in record.headers:
            over |= {(run_id, int(epoch))} & released
            continue
        told, mark = found.setdefault(run_id, Told()), (int(epoch), int(record.headers["n"]))
        end = record.headers.get("end")
        if mark <= last.get(record.key, (-1, -1)) or stopped.get(run_id) == mark[0] or (run_id, mark[0]) in over:
            told.late += 1
            continue
        last[record.key] = mark
        if end is not None:
            stopped[run_id] = mark[0]
        if end is not None and end not in ends:
            told.late += 1
            continue
        frames = record.value.get("frames")
        for frame in frames if isinstance(frames, list) else []:
            if isinstance(frame, dict):
                told.events.append((str(frame["event"]), frame["data"]))
    return found


def wrong_streams(
    judged: Iterable[Judged], outputs: Sequence[Record], seen: Mapping[str, Sequence[tuple[str, Value]]]
) -> list[str]:
    """Return the streams that told something else than the log. Holds for streams of plain modes with small frames."""
    due = streams(judged, outputs)
    wrong: list[str] = []
    for run_id, events in seen.items():
        demanded = due.get(run_id, Told()).events
        if list(events) != demanded:
            at = next((n for n, pair in enumerate(zip(events, demanded, strict=False)) if pair[0] != pair[1]), None)
            where = f"{len(events)} events, the log demands {len(demanded)}"
            if at is not None:
                where = f"event {at} is {events[at]}, the log demands {demanded[at]}; {where}"
            wrong.append(f"the stream of run {run_id} differs from the log: {where}")
    return wrong
