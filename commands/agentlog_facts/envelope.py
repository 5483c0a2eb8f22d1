"""Envelope of a commit, the only stored shape: a `Draft` before the append, a `Recorded` after it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from agentlog_facts.assistant import AssistantFact
from agentlog_facts.checkpoint import CheckpointFact
from agentlog_facts.ids import Key, Stream
from agentlog_facts.json_value import JsonObject
from agentlog_facts.store import StoreItemFact
from agentlog_facts.system import SystemFact
from agentlog_facts.thread import ThreadFact

SPEC = 1
RULES = 1

Fact: TypeAlias = ThreadFact | AssistantFact | CheckpointFact | StoreItemFact | SystemFact

Demand: TypeAlias = Literal["absent", "exists"] | int
"""`absent`: the stream's aggregate does not exist; `exists`: it does; n: the stream's version is n."""

ActorKind: TypeAlias = Literal["user", "service", "system", "cron", "worker"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Identity behind a commit, derived by the server and never sent by a client. `ip_hash` is a keyed hash."""

    kind: ActorKind
    sub: str
    iss: str | None = None
    method: str = "none"
    credential_id: str | None = None
    ip_hash: str | None = None


ANONYMOUS = Actor(kind="user", sub="anonymous")


@dataclass(frozen=True, slots=True)
class Request:
    """The HTTP request behind a commit: its id, method and route template."""

    id: str
    method: str
    route: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Cause and principals of a commit; the same for every commit of one request.

    `on_behalf_of` is the delegation chain, outermost first (human > assistant > run > tool).
    """

    actor: Actor
    correlation_id: str
    causation_id: str | None = None
    on_behalf_of: tuple[str, ...] = ()
    traceparent: str | None = None
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Reference to a value on `agentlog.blobs`: `at` is its path in the list of facts, `size` counts bytes of JSON."""

    at: tuple[str | int, ...]
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Draft:
    """Commit without a verdict: 1..n facts of one stream, accepted together or not at all.

    `event_id` identifies the intent and is the same for each retry; `append_id` identifies one append. `body_sha256` is
    the digest of the command as received. The guard checks `demands`; `epoch` fences what a worker writes for its run.
    """

    key: Key
    stream: Stream
    event_id: str
    append_id: str
    body_sha256: str
    facts: tuple[Fact, ...]
    occurred_at: datetime
    cause: Cause
    demands: Mapping[Stream, Demand] = field(default_factory=dict[Stream, Demand])
    epoch: int | None = None
    provenance: JsonObject | None = None
    key_id: str | None = None
    spec: int = SPEC
    rules: int = RULES


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """Place of a record on `agentlog.events`. Nothing that is stored depends on it: a restore changes offsets."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """Commit read back from the log, with its blobs resolved; `recorded_at` is the broker's append time."""

    place: LogPosition
    draft: Draft
    recorded_at: datetime
