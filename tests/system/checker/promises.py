"""I1: what a client was promised is on the log, once; one key has one outcome; a refusal stands on the log too."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tests.system.checker.fold import Judged
from tests.system.checker.notes import Change, Notes

OUTCOME_UNKNOWN = frozenset({0, 500, 502, 503, 504})
"""Answers after which the client may, and has to, ask again."""
RUN_REQUEST = re.compile(r"/threads/([^/]+)/runs(?:/wait|/stream)?")


TOLD_ONE_BY_ONE = 10
"""So many refusals of one command for one reason are told one by one; the rest of the minute as a count, later."""


def broken_promises(judged: Sequence[Judged], changes: Sequence[Change], *, counting: bool = False) -> list[str]:
    """Return what is wrong between the clients' answers and the log; `counting` as in the notes."""
    return [*_lost(judged, changes), *_two_outcomes(judged, changes), *_unfounded(judged, changes, counting)]


def _lost(judged: Sequence[Judged], changes: Iterable[Change]) -> Iterable[str]:
    places = {(one.record.partition, one.record.offset): one for one in judged}
    born, deleted = _born(judged), _named(judged, "ThreadDeleted", "thread_id")
    for change in (one for one in changes if one.promised):
        told = f"{change.method} {change.path} was answered {change.status}"
        if not (change.token or change.thread_id or change.run_id):
            yield f"{told} and names nothing that could be looked up"
        at = None if change.place is None else places.get(change.place)
        if change.place is not None and (at is None or at.verdict != "accepted"):
            yield f"{told}: its commit {change.token} is {at.verdict if at else 'not on the log'}"
        if at is not None and change.thread_id and at.record.key != change.thread_id:
            yield f"{told}: its commit {change.token} belongs to {at.record.key}"
        for kind, name in (("ThreadCreated", change.thread_id), ("RunCreated", change.run_id)):
            times = born[kind, name]
            if name and (times == 0 or (times > 1 and not deleted[name])):
                yield f"{told}: {kind} of {name} is on the log {times} times"


def _two_outcomes(judged: Sequence[Judged], changes: Iterable[Change]) -> Iterable[str]:
    by_key: defaultdict[tuple[str, str, str], list[Change]] = defaultdict(list)
    for change in changes:
        if change.key:
            by_key[change.method, change.path, change.key].append(change)
    for (method, path, key), asked in by_key.items():
        promised = [one for one in asked if one.promised]
        told = f"{method} {path} with key {key}"
        if len({(one.thread_id, one.run_id) for one in promised}) > 1:
            yield f"{told}: {len(promised)} promises name different outcomes"
        if len({one.body for one in promised}) > 1:
            yield f"{told}: two bodies were both accepted"
        for number, first in enumerate(asked):
            later = [one for one in asked[number + 1 :] if one.body == first.body and not one.promised]
            if first.promised and any(one.status not in OUTCOME_UNKNOWN for one in later):
                yield f"{told}: promised first and refused later"


def _unfounded(judged: Sequence[Judged], changes: Iterable[Change], counting: bool) -> Iterable[str]:
    """I6: a 409 is a refusal or a lost race that the log holds, or is yet to hold as a count."""
    grounds: Counter[str] = Counter()
    single: Counter[tuple[str, str, str]] = Counter()
    for one in judged:
        if one.verdict not in ("accepted", "duplicate"):
            grounds[one.record.key] += 1
        elif one.verdict == "accepted":
            for kind, data in one.facts:
                count = data.get("count")
                if kind == "CommandRefused":
                    grounds[one.record.key] += count if isinstance(count, int) else 1
                    single[one.record.key, str(data.get("command")), str(data.get("reason"))] += count == 1
    counted = {key for (key, _, _), times in single.items() if counting and times >= TOLD_ONE_BY_ONE}
    refused = Counter(change.thread_id for change in changes if change.status == 409 and change.thread_id)
    for thread_id, times in refused.items():
        if grounds[thread_id] < times and thread_id not in counted:
            yield f"thread {thread_id}: {times} answers 409, the log justifies {grounds[thread_id]}"


def multiplied(judged: Iterable[Judged], notes: Notes) -> Iterable[str]:
    """Tell where there are more runs or threads than requests: one that is sent again is the same intent."""
    asked: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for number, change in enumerate(notes.changes):
        request = (change.path, change.key or f"the request {number}, without a key")
        found = RUN_REQUEST.fullmatch(change.path)
        if change.method == "POST" and (found or change.path == "/threads"):
            asked[found[1] if found else ""].add(request)
    made: Counter[str] = Counter()
    for one in judged:
        kinds = [kind for kind, _ in one.facts] if one.verdict == "accepted" else []
        made[one.record.key] += kinds.count("RunCreated")
        made[""] += kinds.count("ThreadCreated") if "RunCreated" not in kinds else 0
    for thread_id, requests in asked.items():
        if made[thread_id] > len(requests) and (thread_id or notes.all_threads):
            what = f"thread {thread_id}: {made[thread_id]} runs were" if thread_id else f"{made['']} threads were"
            yield f"{what} created for {len(requests)} requests"


def _born(judged: Iterable[Judged]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for one in judged:
        if one.verdict == "accepted":
            for kind, data in one.facts:
                name = data.get("thread_id") if kind == "ThreadCreated" else data.get("run_id")
                found[kind, str(name)] += 1
    return found


def _named(judged: Iterable[Judged], wanted: str, field: str) -> Counter[str]:
    accepted = (one for one in judged if one.verdict == "accepted")
    return Counter(str(data.get(field)) for one in accepted for kind, data in one.facts if kind == wanted)
