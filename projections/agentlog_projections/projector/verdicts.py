"""Verdicts on a batch of records, by the guard and the heads in the ledger; no database."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agentlog_facts.decoding import MOST_NAMES
from agentlog_facts.envelope import Draft
from agentlog_facts.errors import Corrupt, UnknownSchema
from agentlog_facts.guard import EMPTY, Accepted, AggregateHead, Prior, RunHead, Verdict, Void, advance, guard
from agentlog_facts.ids import Key, RunId, Stream, category
from agentlog_facts.json_value import JsonObject, as_object, dump, load_object
from agentlog_facts.ports import RawRecord, RecordDecoder
from agentlog_facts.thread import RunCreated
from agentlog_facts.vocabulary import append_id_of
from agentlog_projections.sql.read_model import Commit

log = logging.getLogger(__name__)

MOST_PRIORS = 256
"""Accepted event ids cached per aggregate; with more of them, they are looked up in `log_index`."""

_BLOB_SIZE = re.compile(rb'"sha256":"[0-9a-f]{64}","size":(\d+)')


@dataclass(slots=True)
class Known:
    """Knowledge of the ledger about an aggregate; `facts` counts the accepted ones.

    `priors` holds accepted commits by event_id; all of them if `complete`, which avoids the lookup.
    """

    head: AggregateHead = EMPTY
    facts: int = 0
    priors: dict[str, Prior] = field(default_factory=dict[str, Prior])
    complete: bool = True

    def accept(self, draft: Draft, version: int) -> None:
        """Fold an accepted commit."""
        self.head = advance(self.head, draft)
        self.facts += len(draft.facts)
        self.priors[draft.event_id] = Prior(draft.body_sha256, version)

    def settle(self) -> None:
        """Drop the priors, between batches, once they exceed the bound."""
        if len(self.priors) > MOST_PRIORS or not self.complete:
            self.priors.clear()
            self.complete = False


@dataclass(frozen=True, slots=True)
class Read:
    """A record as read: its commit, or the reason why it is void without the guard.

    `parked`: the record waits in quarantine, neither decoded nor judged.
    """

    raw: RawRecord
    draft: Draft | None
    void: Void | None = None
    parked: bool = False

    @property
    def append_id(self) -> str:
        """Return the id by which the writer finds its verdict, "" where the record does not tell one."""
        return append_id_of(self.raw.value) if self.draft is None else self.draft.append_id


@dataclass(frozen=True, slots=True)
class Judged:
    """A record with its verdict, None while it is parked, and the commit for the read models if it was accepted."""

    read: Read
    verdict: Verdict | None
    commit: Commit | None = None


def judge(reads: Sequence[Read], known: Mapping[Key, Known]) -> list[Judged]:
    """Return the verdict on every record, in log order, and fold accepted commits into `known`."""
    return [_judge(read, known) for read in reads]


def _judge(read: Read, known: Mapping[Key, Known]) -> Judged:
    draft = read.draft
    if read.parked:
        return Judged(read, None)
    if draft is None or read.void is not None:
        return Judged(read, read.void or Void("unreadable"))
    aggregate = known[draft.key]
    verdict = guard(aggregate.head, aggregate.priors.get(draft.event_id), draft)
    if not isinstance(verdict, Accepted):
        return Judged(read, verdict)
    before, ordinal = aggregate.head.runs, aggregate.facts
    aggregate.accept(draft, verdict.version)
    after = aggregate.head.runs
    ended = tuple(run_id for run_id in before if run_id not in after) if before else ()
    ended += _created_and_ended(draft, ended, after)
    return Judged(read, verdict, Commit(read.raw.place, draft, verdict.version, ordinal, ended))


def _created_and_ended(draft: Draft, ended: Sequence[RunId], after: Mapping[RunId, RunHead]) -> tuple[RunId, ...]:
    """Return the runs that one commit created and ended: the head before it does not show them."""
    if len(draft.facts) < 2:
        return ()
    created = (RunId(fact.run_id) for fact in draft.facts if isinstance(fact, RunCreated))
    return tuple(run_id for run_id in created if run_id not in after and run_id not in ended)


async def read_record(decoder: RecordDecoder, raw: RawRecord, partition_of: Callable[[Key], int]) -> Read:
    """Decode a record; one that cannot be decoded is void. Raises: UnknownSchema, BlobMissing, Unavailable."""
    try:
        draft = await decoder.resolve(raw)
    except UnknownSchema:
        raise
    except Corrupt as error:
        log.warning("projector.unreadable", extra={"partition": raw.place.partition, "offset": raw.place.offset})
        return Read(raw, None, Void("unreadable", None, None, str(error)[:200].replace("\x00", "")))
    return Read(raw, draft, readable(draft, raw, partition_of))


def size_bytes(raw: RawRecord) -> int:
    """Return the size of a record, blobs included."""
    value = raw.value or b""
    blobs = sum(int(size) for size in _BLOB_SIZE.findall(value)) if b'"blobs":[{' in value else 0
    return len(value) + blobs


def readable(draft: Draft, raw: RawRecord, partition_of: Callable[[Key], int]) -> Void | None:
    """Return why a decoded record is void without the guard: on the wrong partition, or badly named."""
    names = f"{draft.key}{draft.stream}{draft.event_id}{draft.append_id}{draft.body_sha256}"
    if "\x00" in names:
        return Void("unreadable", None, "text", "NUL")
    if len(names) > MOST_NAMES:
        return Void("unreadable", None, f"at most {MOST_NAMES} characters of names", str(len(names)))
    if category(draft.stream) == "partition":  # is on the partition that it names, not on that of its key
        return None
    wanted = partition_of(draft.key)
    return (
        None if wanted == raw.place.partition else Void("wrong_partition", None, str(wanted), str(raw.place.partition))
    )


def encode_head(head: AggregateHead) -> str:
    """Return a head as it is stored; the order of runs matters (oldest first)."""
    runs: JsonObject = {
        run_id: {"attempt": run.attempt, "epoch": run.epoch, "cancelled": run.cancelled}
        for run_id, run in head.runs.items()
    }
    return dump({"exists": head.exists, "versions": dict(head.versions.items()), "runs": runs}).decode()


def decode_head(stored: str) -> AggregateHead:
    """Decode a stored head. Raises: ValueError for another shape."""
    record = load_object(stored, "head")
    versions = as_object(record["versions"], "versions")
    runs = as_object(record["runs"], "runs")
    return AggregateHead(
        exists=record["exists"] is True,
        versions={Stream(name): version for name, version in versions.items() if isinstance(version, int)},
        runs={RunId(run_id): _run_head(as_object(run, "run")) for run_id, run in runs.items()},
    )


def _run_head(stored: JsonObject) -> RunHead:
    attempt, epoch = stored["attempt"], stored["epoch"]
    if not isinstance(attempt, int) or not (epoch is None or isinstance(epoch, int)):
        raise ValueError(f"run head: unknown shape {stored!r}")
    return RunHead(attempt, epoch, stored["cancelled"] is True)
