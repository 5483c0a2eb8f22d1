"""Deduplication of the batches of idempotent producers, per partition: new, a repeat, or out of order.

As in Kafka, a partition keeps the last five batches of each producer id. The response to a repeat has the first offset.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from .errors import Code

REMEMBERED = 5
_SEQUENCES = 1 << 31

ProducerRow = tuple[int, int, list[tuple[int, int, int]]]


class Sent(NamedTuple):
    """Stored batch: its sequence numbers and its base offset."""

    first: int
    last: int
    base_offset: int


@dataclass(slots=True)
class Producer:
    """State of one producer id in one partition."""

    epoch: int
    batches: deque[Sent] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class Producers:
    """Producers of one partition, least recently seen first; at most `limit` of them."""

    __slots__ = ("_by_id", "_limit")

    def __init__(self, limit: int) -> None:
        self._by_id: OrderedDict[int, Producer] = OrderedDict()
        self._limit = limit

    def judge(self, producer_id: int, epoch: int, first: int, count: int) -> tuple[int, int]:
        """Return (error code, base offset of the earlier copy or -1)."""
        known = self._by_id.get(producer_id)
        if known is None or epoch > known.epoch:
            # Kafka accepts any first sequence of a producer that it does not know (its records may have expired).
            return (Code.OUT_OF_ORDER_SEQUENCE_NUMBER, -1) if known is not None and first != 0 else (Code.NONE, -1)
        if epoch < known.epoch:
            return Code.INVALID_PRODUCER_EPOCH, -1
        last = (first + count - 1) % _SEQUENCES
        for sent in known.batches:
            if sent.first == first and sent.last == last:
                return Code.NONE, sent.base_offset
        if known.batches and first != (known.batches[-1].last + 1) % _SEQUENCES:
            return Code.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
        return Code.NONE, -1

    def note(self, producer_id: int, epoch: int, first: int, count: int, base_offset: int) -> None:
        """Record a batch that is appended to the log."""
        known = self._by_id.get(producer_id)
        if known is None or known.epoch != epoch:
            known = self._by_id[producer_id] = Producer(epoch)
            if len(self._by_id) > self._limit:
                self._by_id.popitem(last=False)
        self._by_id.move_to_end(producer_id)
        known.batches.append(Sent(first, (first + count - 1) % _SEQUENCES, base_offset))

    def forget_from(self, offset: int) -> None:
        """Remove the batches at and after an offset, which never reached the disk."""
        for known in self._by_id.values():
            known.batches = deque((s for s in known.batches if s.base_offset < offset), maxlen=REMEMBERED)

    def rows(self) -> list[ProducerRow]:
        """Return the state in a form that JSON can represent."""
        return [(pid, p.epoch, [(s.first, s.last, s.base_offset) for s in p.batches]) for pid, p in self._by_id.items()]

    def load(self, rows: Iterable[ProducerRow]) -> None:
        """Load the state that `rows` returned."""
        for producer_id, epoch, batches in rows:
            sent = deque((Sent(*each) for each in batches), maxlen=REMEMBERED)
            self._by_id[producer_id] = Producer(epoch, sent)

    def copy(self) -> "Producers":
        """Return an independent copy."""
        other = Producers(self._limit)
        other.load(self.rows())
        return other
