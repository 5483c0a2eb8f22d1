"""I8: a read never shows less than its token demands, nothing that is void, and nobody's view goes backwards."""

from collections.abc import Iterable, Sequence

from tests.system.checker.fold import Judged
from tests.system.checker.notes import Look

ENDS = frozenset({"success", "error", "timeout", "interrupted"})


def backward_reads(judged: Sequence[Judged], looks: Sequence[Look]) -> list[str]:
    """Return the reads that showed what they must not show."""
    return [*_states(judged, looks), *_runs(judged, looks)]


def _checkpoints(judged: Iterable[Judged]) -> dict[str, dict[str, tuple[int, int]]]:
    """Return thread -> checkpoint of the root graph -> place of its last accepted commit."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for one in judged:
        if one.verdict != "accepted":
            continue
        for kind, data in one.facts:
            if kind == "CheckpointSaved" and data.get("checkpoint_ns") == "":
                places = found.setdefault(one.record.key, {})
                places[str(data["checkpoint_id"])] = (one.record.partition, one.record.offset)
    return found


def _states(judged: Sequence[Judged], looks: Iterable[Look]) -> Iterable[str]:
    known, seen = _checkpoints(judged), dict[tuple[str, str], int]()
    for look in looks:
        places = known.get(look.thread_id, {})
        shown = places.get(look.checkpoint_id)
        if look.checkpoint_id and shown is None:
            yield f"{look.client}: thread {look.thread_id} showed checkpoint {look.checkpoint_id}, accepted nowhere"
            continue
        if look.run_id or look.run_status:
            continue  # a look at a run, not at a state
        offset = -1 if shown is None else shown[1]
        before = seen.get((look.client, look.thread_id), -1)
        if offset < before:
            yield f"{look.client}: thread {look.thread_id} went back from offset {before} to {offset}"
        seen[look.client, look.thread_id] = max(offset, before)
        if look.place is not None:
            due = [at for partition, at in places.values() if partition == look.place[0] and at <= look.place[1]]
            if due and offset < max(due):
                yield f"{look.client}: token {look.token} demands offset {max(due)}, shown was {offset}"


def _runs(judged: Sequence[Judged], looks: Iterable[Look]) -> Iterable[str]:
    ended: dict[str, tuple[tuple[int, int], str]] = {}
    created: dict[str, tuple[int, int]] = {}
    for one in judged:
        if one.verdict == "accepted":
            place = (one.record.partition, one.record.offset)
            for kind, data in one.facts:
                if kind == "RunCreated":
                    created[str(data["run_id"])] = place
                elif kind == "RunFinished":
                    ended[str(data["run_id"])] = (place, str(data["status"]))
    last: dict[tuple[str, str], str] = {}
    for look in (one for one in looks if one.run_id):
        before = last.get((look.client, look.run_id), "")
        if before in ENDS and look.run_status != before:
            yield f"{look.client}: run {look.run_id} was shown {before}, then {look.run_status or 'absent'}"
        last[look.client, look.run_id] = look.run_status
        if look.run_status in ENDS and ended.get(look.run_id, ((0, 0), ""))[1] != look.run_status:
            yield f"{look.client}: run {look.run_id} was shown {look.run_status}, the log knows no such end"
        if not look.run_status and _covers(look.place, created.get(look.run_id)):
            yield f"{look.client}: token {look.token} demands run {look.run_id}, which was not shown"


def _covers(token: tuple[int, int] | None, place: tuple[int, int] | None) -> bool:
    """Tell whether a token demands what lies at a place."""
    return token is not None and place is not None and token[0] == place[0] and place[1] <= token[1]
