"""Encoding of the values of the Kafka protocol (non-flexible versions)."""

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from .errors import MalformedRequest

T = TypeVar("T")

_I8 = struct.Struct(">b")
_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_I64 = struct.Struct(">q")


class Reader:
    """Reader of one request, front to back. Raises: MalformedRequest if the bytes end too early or are not valid."""

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: bytes, pos: int, end: int) -> None:
        self.data = data
        self.pos = pos
        self.end = end

    def _take(self, size: int) -> int:
        pos = self.pos
        self.pos = pos + size
        if size < 0 or self.pos > self.end:
            raise MalformedRequest(f"{size} bytes expected at {pos}, {self.end - pos} left")
        return pos

    def i8(self) -> int:
        """Read a signed byte."""
        return int.from_bytes(self.data[self._take(1) : self.pos], "big", signed=True)

    def i16(self) -> int:
        """Read 16 bits, signed."""
        return int.from_bytes(self.data[self._take(2) : self.pos], "big", signed=True)

    def i32(self) -> int:
        """Read 32 bits, signed."""
        return int.from_bytes(self.data[self._take(4) : self.pos], "big", signed=True)

    def i64(self) -> int:
        """Read 64 bits, signed."""
        return int.from_bytes(self.data[self._take(8) : self.pos], "big", signed=True)

    def boolean(self) -> bool:
        """Read a byte as a truth value."""
        return self.i8() != 0

    def nullable_string(self) -> str | None:
        """Read a string with a 16-bit length; -1 means None."""
        size = self.i16()
        if size < 0:
            return None
        start = self._take(size)
        try:
            return self.data[start : self.pos].decode()
        except UnicodeDecodeError as error:
            raise MalformedRequest(f"string at {start} is not UTF-8") from error

    def string(self) -> str:
        """Read a string; null reads as empty."""
        return self.nullable_string() or ""

    def blob(self) -> bytes:
        """Read bytes with a 32-bit length; null reads as empty."""
        size = self.i32()
        if size < 0:
            return b""
        start = self._take(size)
        return self.data[start : self.pos]

    def nullable_array(self, item: Callable[[], T]) -> list[T] | None:
        """Read an array with a 32-bit count; -1 means None."""
        count = self.i32()
        if count < 0:
            return None
        if count > self.end - self.pos:
            raise MalformedRequest(f"array of {count} items in {self.end - self.pos} bytes")
        return [item() for _ in range(count)]

    def array(self, item: Callable[[], T]) -> list[T]:
        """Read an array; null reads as empty."""
        return self.nullable_array(item) or []


class Writer:
    """Writer of one response; every method returns the writer itself."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def i8(self, value: int) -> "Writer":
        """Write a signed byte."""
        self._parts.append(_I8.pack(value))
        return self

    def i16(self, value: int) -> "Writer":
        """Write 16 bits, signed."""
        self._parts.append(_I16.pack(value))
        return self

    def i32(self, value: int) -> "Writer":
        """Write 32 bits, signed."""
        self._parts.append(_I32.pack(value))
        return self

    def i64(self, value: int) -> "Writer":
        """Write 64 bits, signed."""
        self._parts.append(_I64.pack(value))
        return self

    def boolean(self, value: bool) -> "Writer":
        """Write a truth value as one byte."""
        self._parts.append(b"\x01" if value else b"\x00")
        return self

    def string(self, value: str | None) -> "Writer":
        """Write a string with a 16-bit length, None as -1."""
        if value is None:
            self._parts.append(b"\xff\xff")
        else:
            encoded = value.encode()
            self._parts += (_I16.pack(len(encoded)), encoded)
        return self

    def blob(self, value: bytes) -> "Writer":
        """Write bytes with a 32-bit length."""
        self._parts += (_I32.pack(len(value)), value)
        return self

    def array(self, items: Sequence[T], item: Callable[[T], object]) -> "Writer":
        """Write a 32-bit count, then call `item` for each."""
        self.i32(len(items))
        for each in items:
            item(each)
        return self

    def i32s(self, items: Iterable[int]) -> "Writer":
        """Write an array of 32-bit numbers."""
        values = list(items)
        return self.array(values, self.i32)

    def done(self) -> bytes:
        """Return all bytes that were written."""
        return b"".join(self._parts)
