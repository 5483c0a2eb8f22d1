"""In-memory log with the real guard: `EventLog`, `Verdicts` and `LedgerReads`, held by the contract suites."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from agentlog_facts.envelope import Draft, LogPosition, Recorded
from agentlog_facts.errors import Corrupt, Diverged, OutcomeUnknown, Unavailable
from agentlog_facts.guard import EMPTY, Accepted, AggregateHead, Prior, Verdict, advance, guard
from agentlog_facts.ids import Key
from agentlog_facts.ports import Indexed, RawRecord
from agentlog_facts.vocabulary import decode_commit, encode_commit, encode_facts, parse_commit

AT = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class MemoryLog:
    """One partition. `lose_acks` is the number of next appends that reach the log without an acknowledgement;
    `refuse` is the number of next appends that fail.
    """

    records: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    heads: defaultdict[str, AggregateHead] = field(default_factory=lambda: defaultdict(lambda: EMPTY))
    rows: list[tuple[Draft, Verdict]] = field(default_factory=list[tuple[Draft, Verdict]])
    lose_acks: int = 0
    refuse: int = 0

    def partition_of(self, key: Key) -> int:
        return 0

    async def append(self, draft: Draft) -> LogPosition:
        if self.refuse:
            self.refuse -= 1
            raise Unavailable("the log is away")
        self.records.append((draft.key, encode_commit(draft, encode_facts(draft))))
        self._fold(draft)
        if self.lose_acks:
            self.lose_acks -= 1
            raise OutcomeUnknown("no acknowledgement")
        return LogPosition(0, len(self.records) - 1)

    async def read(self, place: LogPosition) -> Recorded:
        if not 0 <= place.offset < len(self.records):
            raise Corrupt(f"no record at {place.offset}")
        key, value = self.records[place.offset]
        return Recorded(place, decode_commit(key, parse_commit(value)), AT)

    async def wait(self, place: LogPosition, append_id: str, deadline: float) -> Verdict:
        draft, verdict = self.rows[place.offset]
        if draft.append_id != append_id:
            raise OutcomeUnknown("no verdict")
        return verdict

    async def by_append(self, key: Key, append_id: str) -> Indexed | None:
        return self._first(lambda draft, _: draft.key == key and draft.append_id == append_id)

    async def accepted(self, key: Key, event_id: str) -> Indexed | None:
        return self._first(
            lambda draft, verdict: draft.key == key and draft.event_id == event_id and isinstance(verdict, Accepted)
        )

    async def at(self, places: Sequence[LogPosition]) -> Sequence[Indexed]:
        return [self._indexed(place.offset) for place in places if place.offset < len(self.rows)]

    async def knows(self, key: Key) -> bool:
        return bool(self.heads[key].versions)

    async def position(self, partition: int) -> int:
        return len(self.records)

    def _first(self, matches: Callable[[Draft, Verdict], bool]) -> Indexed | None:
        found = (number for number, row in enumerate(self.rows) if matches(*row))
        number = next(found, None)
        return None if number is None else self._indexed(number)

    def _indexed(self, number: int) -> Indexed:
        draft, verdict = self.rows[number]
        return Indexed(LogPosition(0, number), draft.event_id, draft.append_id, draft.body_sha256, verdict)

    def _fold(self, draft: Draft) -> None:
        prior = next((self._prior(row) for row in self.rows if self._same(row, draft)), None)
        verdict = guard(self.heads[draft.key], prior, draft)
        if isinstance(verdict, Accepted):
            self.heads[draft.key] = advance(self.heads[draft.key], draft)
        self.rows.append((draft, verdict))

    def _same(self, row: tuple[Draft, Verdict], draft: Draft) -> bool:
        return row[0].event_id == draft.event_id and row[0].key == draft.key and isinstance(row[1], Accepted)

    def _prior(self, row: tuple[Draft, Verdict]) -> Prior:
        assert isinstance(row[1], Accepted)
        return Prior(row[0].body_sha256, row[1].version)


class MemoryTail:
    """Implements `EventTail` over a `MemoryLog`."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._next: int | None = None

    def seek(self, partition: int, offset: int) -> None:
        self._next = offset

    def drop(self, partition: int) -> None:
        self._next = None

    async def poll(self, max_records: int, patience: timedelta) -> Sequence[RawRecord]:
        if self._next is not None and self._next > len(self._log.records):
            raise Diverged(f"the log has {len(self._log.records)} records, the next is to be {self._next}")
        end = time.monotonic() + patience.total_seconds()
        while self._next is None or self._next >= len(self._log.records):
            if time.monotonic() >= end:
                return []
            await asyncio.sleep(0)
        start, self._next = self._next, min(len(self._log.records), self._next + max_records)
        return [self._raw(offset) for offset in range(start, self._next)]

    async def ends(self) -> Mapping[int, int]:
        return {0: len(self._log.records)}

    async def resolve(self, raw: RawRecord) -> Draft:
        return decode_commit((raw.key or b"").decode(), parse_commit(raw.value or b""))

    def _raw(self, offset: int) -> RawRecord:
        key, value = self._log.records[offset]
        return RawRecord(LogPosition(0, offset), key.encode(), value, AT)
