"""Envelope of a commit, the only stored shape: a `Draft` before the append, a `Recorded` after it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from agentlog_facts.assistant import AssistantFact
from agentlog_facts.checkpoint import CheckpointFact
from agentlog_facts.cron import CronFact
from agentlog_facts.ids import Key, Stream
from agentlog_facts.json_value import JsonObject
from agentlog_facts.keyed_digest import KeyedDigest
from agentlog_facts.store import StoreItemFact
from agentlog_facts.system import SystemFact
from agentlog_facts.thread import ThreadFact
from agentlog_facts.thread_copy import ThreadCopyFact

SPEC = 2
"""Version of the envelope that this release writes; it reads every earlier one."""
RULES = 2
"""Version of the guard that judges what this release writes; earlier commits are judged by the rules they name."""

Fact: TypeAlias = ThreadFact | ThreadCopyFact | AssistantFact | CronFact | CheckpointFact | StoreItemFact | SystemFact

Demand: TypeAlias = Literal["absent", "exists"] | int
"""`absent`: the stream's aggregate does not exist; `exists`: it does; n: the stream's version is n.

On `run-`, and since rules 2 on `meta-`, `absent` asks for the stream itself.
"""

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
class Delegation:
    """One step of a chain of delegations: `principal` let `delegate` act for it.

    `scopes` and `audience` limit what the delegate may do, `grant_id` names the grant, `parent_id` the grant from which
    it was derived. Source: OWASP AISVS 1.0, 9.4.3 and 9.6; OCSF 1.9, `delegation`.
    """

    principal: str
    delegate: str
    issuer: str | None = None
    scopes: tuple[str, ...] | None = None
    audience: str | None = None
    grant_id: str | None = None
    parent_id: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Authorization:
    """Decision of the handler `policy` that let a request pass; `policy_digest` is the SHA-256 of the handler's code.

    `scopes` are those of the caller. `filter_digest` is that of the filter (as compact JSON with sorted keys) that the
    handler returned, None without a filter.
    """

    decision: Literal["allow", "deny"]
    policy: str
    policy_digest: str
    scopes: tuple[str, ...] = ()
    filter_digest: KeyedDigest | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """The HTTP request behind a commit: its id, method and route template, and the name that the client gave itself.

    `id` is the client's X-Request-Id, or the correlation id if it sent none. `client` is its User-Agent, cut to 200
    characters.
    """

    id: str
    method: str
    route: str
    client: str | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """Cause and principals of a commit; the same for every commit of one request.

    The server chooses `correlation_id`. `on_behalf_of` is the delegation chain, outermost first (human > assistant >
    run > tool). `authz` is None where no handler decides.
    """

    actor: Actor
    correlation_id: str
    causation_id: str | None = None
    on_behalf_of: tuple[Delegation, ...] = ()
    traceparent: str | None = None
    request: Request | None = None
    authz: Authorization | None = None


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
