"""The only shape that is stored: a commit, as a `Draft` before the append and as a `Recorded` after it."""

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
    """Who did it; derived by the server, never sent by a client. `ip_hash` is keyed."""

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
    """Why and for whom a commit is made; the same for every commit of one request.

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
    """A value that lies on `agentlog.blobs`: `at` is its path inside the list of facts, `size` counts bytes of JSON."""

    at: tuple[str | int, ...]
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A commit that wants to happen: 1..n facts of one stream, atomically.

    `event_id` names the intent (the same over retries), `append_id` this try; `body_sha256` is the digest of the
    command as received; `demands` are judged by `guard`, `epoch` fences what a worker writes for its run.
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
    """Where a record lies in `agentlog.events`. Nothing stored depends on it: offsets change when a log is restored."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A commit as read back from the log, large values resolved; `recorded_at` is the broker's append time."""

    place: LogPosition
    draft: Draft
    recorded_at: datetime
