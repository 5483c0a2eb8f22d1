"""Hints that the projector publishes after each transaction; a receiver that misses one reads PostgreSQL."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agentlog_facts.guard import Accepted, Duplicate, Verdict, Void
from agentlog_facts.ids import Stream
from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load_object

VOID_KEYS = ("stream", "expected", "found")
TRY = 12
"""Number of the last characters of an append id that identify it in a hint; they are random in a UUIDv7."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Verdicts on the records `after < offset <= to` of one partition, and the runs that ended or shall stop.

    A hint is valid only for an offset inside that range and for the append id of the record there: after a log is
    restored, the same offset can hold another record. `tries` (see `tries_of`) identifies the appends of the range, in
    order. `versions` maps the offset of each accepted commit to its version, `not_accepted` any other offset to its
    verdict. `ended` names the runs with a terminal fact, `cancelled` the runs with a cancel request.
    """

    partition: int
    after: int
    to: int
    versions: Mapping[int, int] = field(default_factory=dict[int, int])
    not_accepted: Mapping[int, Duplicate | Void] = field(default_factory=dict[int, "Duplicate | Void"])
    ended: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    tries: str = ""

    def verdict(self, offset: int, append_id: str) -> Verdict | None:
        """Return the verdict on the append at an offset, None if this hint does not cover it."""
        number = offset - self.after - 1
        if number < 0 or self.tries[TRY * number : TRY * (number + 1)] != tries_of([append_id]):
            return None
        if offset in self.versions:
            return Accepted(self.versions[offset])
        return self.not_accepted.get(offset)


def tries_of(append_ids: Iterable[str]) -> str:
    """Return the last TRY characters of each append id, joined and padded with blanks."""
    return "".join([append_id[-TRY:].rjust(TRY) for append_id in append_ids])


def encode_verdict(verdict: Verdict) -> JsonObject:
    """Return {verdict, ...} as stored in `log_index` and sent in hints."""
    match verdict:
        case Accepted():
            return {"verdict": "accepted", "version": verdict.version}
        case Duplicate():
            return {"verdict": "duplicate", "of": verdict.of}
        case Void():
            detail: JsonObject = {"verdict": "void", "reason": verdict.reason}
            return detail | {name: getattr(verdict, name) for name in VOID_KEYS if getattr(verdict, name) is not None}


def decode_verdict(stored: JsonObject) -> Verdict:
    """Decode the result of `encode_verdict`; raise ValueError for another shape."""
    kind, version, of, reason = (stored.get(name) for name in ("verdict", "version", "of", "reason"))
    if kind == "accepted" and isinstance(version, int):
        return Accepted(version)
    if kind == "duplicate" and isinstance(of, int):
        return Duplicate(of)
    if kind == "void" and isinstance(reason, str):
        return _void(reason, stored)
    raise ValueError(f"verdict: unknown shape {stored!r}")


def _void(reason: str, stored: JsonObject) -> Void:
    from agentlog_facts.vocabulary import void_reason  # the one module that may narrow stored text to a closed set

    name, expected, found = (stored.get(key) for key in VOID_KEYS)
    return Void(
        void_reason(reason),
        Stream(name) if isinstance(name, str) else None,
        expected if isinstance(expected, str) else None,
        found if isinstance(found, str) else None,
    )


def encode_hint(hint: Hint) -> bytes:
    """Return the message to publish."""
    return dump(
        {
            "partition": hint.partition,
            "after": hint.after,
            "to": hint.to,
            "versions": {str(offset): version for offset, version in hint.versions.items()},
            "not_accepted": {str(offset): encode_verdict(verdict) for offset, verdict in hint.not_accepted.items()},
            "ended": list(hint.ended),
            "cancelled": list(hint.cancelled),
            "tries": hint.tries,
        }
    )


def decode_hint(message: bytes) -> Hint:
    """Decode a published message; raise ValueError for a message of another shape."""
    stored = load_object(message, "hint")
    partition, after, to = stored["partition"], stored["after"], stored["to"]
    if not isinstance(partition, int) or not isinstance(after, int) or not isinstance(to, int):
        raise ValueError("hint: expected whole numbers")
    refused = as_object(stored["not_accepted"], "not_accepted")
    verdicts = {int(offset): decode_verdict(as_object(value, "verdict")) for offset, value in refused.items()}
    return Hint(
        partition,
        after,
        to,
        versions={int(o): v for o, v in as_object(stored["versions"], "versions").items() if isinstance(v, int)},
        not_accepted={o: v for o, v in verdicts.items() if not isinstance(v, Accepted)},
        ended=_texts(stored["ended"]),
        cancelled=_texts(stored["cancelled"]),
        tries=str(stored["tries"]),
    )


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()
