"""Immutable sequence whose longer versions share its memory."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import eq
from typing import Generic, TypeGuard, TypeVar, overload

T = TypeVar("T")


class GrowingList(Sequence[T], Generic[T]):
    """A prefix of a buffer to which only `followed_by` of its longest prefix adds, so that adding copies nothing."""

    __slots__ = ("_buffer", "_length")

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._buffer = list(items)
        self._length = len(self._buffer)

    @property
    def buffer(self) -> Sequence[T]:
        """Return the memory that longer versions share; only its first `len(self)` items belong to this one."""
        return self._buffer

    def followed_by(self, items: Iterable[T]) -> "GrowingList[T]":
        """Return this sequence with more items. Take time for the new items only, unless another one grew from it."""
        longer: GrowingList[T] = GrowingList()
        longer._buffer = self._buffer if len(self._buffer) == self._length else self._buffer[: self._length]
        longer._buffer.extend(items)
        longer._length = len(longer._buffer)
        return longer

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return islice(self._buffer, self._length)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return self._buffer[: self._length][index]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self._buffer[index if index >= 0 else self._length + index]

    def __eq__(self, other: object) -> bool:
        return _is_sequence(other) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # equal to mutable sequences

    def __repr__(self) -> str:
        return f"GrowingList({list(self)!r})"


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence)
