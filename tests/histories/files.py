"""File format of a recorded history: one record per line, rows and answers as one JSON document per line."""

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Stored:
    """A record; `timestamp` in milliseconds, from the broker."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def versions() -> list[str]:
    """Return the releases with a recorded history."""
    return sorted(path.parent.name for path in HERE.glob("*/events.jsonl"))


def write_records(path: Path, records: Iterable[Stored]) -> None:
    """Write one record per line."""
    lines = [json.dumps(_out(one), ensure_ascii=False) for one in records]
    path.write_text("".join(f"{line}\n" for line in lines))


def read_records(path: Path) -> list[Stored]:
    """Read the records that `write_records` wrote."""
    return [_back(line) for line in path.read_text().splitlines()]


def sums(folder: Path) -> str:
    """Return the digests of a history's files, as `sha256sum` prints them."""
    files = sorted(folder.glob("*.jsonl"))
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def _out(one: Stored) -> dict[str, object]:
    return {
        "partition": one.partition,
        "offset": one.offset,
        "timestamp": one.timestamp,
        "key": _bytes_out(one.key),
        "headers": [[name, _bytes_out(value)] for name, value in one.headers],
        "value": _bytes_out(one.value),
    }


def _back(line: str) -> Stored:
    found = json.loads(line)
    headers = tuple((name, _bytes_back(value) or b"") for name, value in found["headers"])
    key, value = _bytes_back(found["key"]), _bytes_back(found["value"])
    return Stored(found["partition"], found["offset"], found["timestamp"], key, value, headers)


def _bytes_out(value: bytes | None) -> object:
    """Return bytes as JSON: UTF-8 as readable text, others as base64."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _bytes_back(stored: "str | dict[str, str] | None") -> bytes | None:
    if stored is None or isinstance(stored, str):
        return None if stored is None else stored.encode()
    return base64.b64decode(stored["base64"])
