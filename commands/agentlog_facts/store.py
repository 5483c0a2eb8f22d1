"""Facts of items in the store, with the attempt that wrote them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_facts.json_value import JsonObject, dump


@dataclass(frozen=True, slots=True)
class StoreItemPut:
    """An item was put. The last writer in log order wins.

    `thread_id`, `run_id` and `epoch` name the attempt that wrote it, None for a client. The epoch does not fence here:
    it shows which items an attempt wrote after it had lost its run.
    """

    namespace: tuple[str, ...]
    key: str
    value: JsonObject
    thread_id: ThreadId | None = None
    run_id: RunId | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class StoreItemDeleted:
    """An item was deleted, whether it existed or not."""

    namespace: tuple[str, ...]
    key: str
    thread_id: ThreadId | None = None
    run_id: RunId | None = None
    epoch: int | None = None


StoreItemFact: TypeAlias = StoreItemPut | StoreItemDeleted


def store_key(namespace: Sequence[str]) -> Key:
    """Return the aggregate key of a namespace: SHA-256 (hex) of its labels as a compact JSON array."""
    return Key(hashlib.sha256(dump(list(namespace))).hexdigest())
