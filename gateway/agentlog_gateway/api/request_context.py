"""Context of one HTTP request: its query and body, its identity on the log, and its submission of commands."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from agentlog_commands.command import Decision, Refused
from agentlog_commands.identity import Identity, digest, follow_up, identify
from agentlog_commands.submit import KEY_REUSED, Intent, Submitted, Voided
from agentlog_facts import envelope
from agentlog_facts.envelope import ANONYMOUS, Actor, Cause
from agentlog_facts.errors import AgentlogError, Contended, KeyReused, Unavailable
from agentlog_facts.ids import Key
from agentlog_facts.json_value import Json, JsonObject
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.http.body import REPLACEMENT, parse_body, read_body
from agentlog_gateway.http.errors import Problem, invalid
from agentlog_gateway.http.responses import REQUEST_ID_HEADER, TOKEN_HEADER
from agentlog_gateway.schemas.queries import QueryString
from agentlog_gateway.schemas.requests import canonical_uuid, path_uuid

log = logging.getLogger(__name__)

IDEMPOTENCY_HEADER = "idempotency-key"
LONGEST_KEY = 255
LONGEST_REQUEST_ID = 128
LONGEST_CLIENT = 200

_Model = TypeVar("_Model", bound=BaseModel)
_Query = TypeVar("_Query", bound=QueryString)


@dataclass(frozen=True, slots=True)
class Attempted:
    """A command on an aggregate that had no effect; `reason` is that of its decider or of the log.

    `target` holds the ids of what the command was for.
    """

    key: Key
    command: str
    target: JsonObject
    reason: str = ""


class RequestContext:
    """One request. Endpoints read it, submit through it, and get headers of their response from it."""

    def __init__(self, dependencies: Dependencies, request: Request, route: str, item: int | None = None) -> None:
        self.dependencies = dependencies
        self.request = request
        self.route = route
        self._item = item
        self.actor: Actor = ANONYMOUS
        self.attempted: Attempted | None = None
        self._body = b""
        self._identity: Identity | None = None
        self._correlation_id: str | None = None
        self._deadline: float | None = None

    @property
    def head(self) -> bool:
        """Return whether the client wants headers only."""
        return self.request.method == "HEAD"

    @property
    def route_name(self) -> str:
        """Return method and path of the route, as a template."""
        return f"{self.request.method} {self.route}"

    def path_id(self, kind: str) -> str:
        """Return `{kind}_id` of the path. Raises: Problem 422 when it is no UUID."""
        return path_uuid(kind, self.request.path_params[f"{kind}_id"])

    def query(self, model: type[_Query]) -> _Query:
        """Return the checked query. Raises: Problem."""
        given = self.request.query_params
        return model.model_validate({name: given.getlist(name) for name in model.model_fields if name in given})

    async def raw_body(self) -> bytes:
        """Return the body as received. Raises: Problem 413."""
        self._body = await read_body(self.request, self.dependencies.limits.body_bytes)
        return self._body

    @property
    def raw(self) -> bytes:
        """Return the body that was read before."""
        return self._body

    async def json(self) -> Json:
        """Return the body. Raises: Problem 413, 422."""
        return parse_body(await self.raw_body())

    async def body(self, model: type[_Model]) -> _Model:
        """Return the checked body. Raises: Problem 413, 422, ValidationError."""
        return model.model_validate(await self.json())

    def demand_small(self, **filters: JsonObject | None) -> None:
        """Check that filters by containment, given by name, are within the limit of metadata. Raises: Problem 422."""
        for name, given in filters.items():
            refusal = self.dependencies.limits.metadata.refusal(given or {}, name)
            if refusal is not None:
                raise invalid(refusal.detail)

    @property
    def correlation_id(self) -> str:
        """Return the id of this request that no client can choose; all its commits bear it."""
        if self._correlation_id is None:
            self._correlation_id = self.dependencies.ids.uuid7()
        return self._correlation_id

    @property
    def request_id(self) -> str:
        """Return the client's X-Request-Id, or the correlation id."""
        given = self.request.headers.get(REQUEST_ID_HEADER, "")
        fits = 0 < len(given) <= LONGEST_REQUEST_ID and given.isprintable()
        return given if fits else self.correlation_id

    @property
    def client(self) -> str | None:
        """Return the name that the client gives itself, without control characters; None if it gives none."""
        given = self.request.headers.get("user-agent", "")[:LONGEST_CLIENT]
        if not given.isprintable():
            given = "".join(sign if sign.isprintable() else REPLACEMENT for sign in given)
        return given or None

    @property
    def ip_hash(self) -> str | None:
        """Return the keyed hash of the client's address, None if the address or the key is unknown."""
        if self.request.client is None:
            return None
        try:
            return self.dependencies.salts.ip_hash(self.request.client.host)
        except Unavailable as fault:  # the mutation does not depend on it
            log.error("request.without_ip_hash", extra={"error": str(fault)})
            return None

    @property
    def identity(self) -> Identity:
        """Return the ids of this intent, derived from its Idempotency-Key where it has one. Raises: Problem 422."""
        if self._identity is None:
            key = self.request.headers.get(IDEMPOTENCY_HEADER)
            if key is not None and not 0 < len(key) <= LONGEST_KEY:
                raise invalid(f"Idempotency-Key: expected 1 to {LONGEST_KEY} characters, found {len(key)}")
            path = "/".join(canonical_uuid(part) or part for part in self.request.scope["path"].split("/"))
            self._identity = identify(self.actor, self.request.method, path, key, self.dependencies.ids, self._item)
        return self._identity

    def of_item(self, item: int) -> "RequestContext":
        """Return the context of one item of a batch: it has ids of its own, and shares body and deadline."""
        made = RequestContext(self.dependencies, self.request, self.route, item)
        made.actor, made._body, made._correlation_id, made._deadline = (
            self.actor,
            self._body,
            self.correlation_id,
            self.deadline,
        )
        return made

    def new_id(self, name: str) -> str:
        """Return an id for a new resource, the same for each retry of a request with an Idempotency-Key."""
        return self.identity.derived(name, self.dependencies.ids)

    @property
    def received(self) -> bytes:
        """Return the command as received: the body, and the query where there is one."""
        query: bytes = self.request.scope["query_string"]
        return query + b"\n" + self._body if query else self._body

    @property
    def body_sha256(self) -> str:
        """Return the plain digest of the command as received: the guard compares it. Source: decision 0054."""
        return digest(self.received)

    @property
    def cause(self) -> Cause:
        """Return the cause of the commits of this request: caller, request and trace."""
        request = envelope.Request(self.request_id, self.request.method, self.route, self.client)
        actor = replace(self.actor, ip_hash=self.ip_hash)
        traceparent = self.request.headers.get("traceparent")
        fits = traceparent is not None and len(traceparent) <= 64 and traceparent.isascii()
        return Cause(actor, self.correlation_id, traceparent=traceparent if fits else None, request=request)

    @property
    def deadline(self) -> float:
        """Return the deadline of all submissions of this request, in seconds of the monotonic clock.

        It begins with the first commit, so that a body that arrives slowly does not shorten it.
        """
        if self._deadline is None:
            self._deadline = self.dependencies.clock.monotonic() + self.dependencies.limits.deadline_s
        return self._deadline

    async def submit(
        self,
        command: str,
        key: str,
        decide: Callable[[], Awaitable[Decision]],
        *,
        serial: bool = False,
        conflicts: bool = False,
        item: str | None = None,
        target: JsonObject | None = None,
    ) -> Submitted | Refused | Voided:
        """Submit the decision on a command; the record of a refusal names it `command`, and the ids of its `target`.

        By default, the target is what the path names. `item` names a commit of a request that makes several.
        `conflicts`: the API defines a 409 for this command; then too many lost races raise it in place of Contended.

        Raises: Unavailable, OutcomeUnknown, KeyReused, Contended or Problem 409, Problem 422 for metadata that is too
        large, and the errors of `decide`.
        """
        identity = self.identity
        event_id = self._event_id(item)
        intent = Intent(Key(key), event_id, self.body_sha256, self.cause, identity.keyed, serial)
        attempted = self.attempted = Attempted(Key(key), command, self._path_ids() if target is None else target)
        deciding = _CaughtDecision(decide)
        try:
            done = await self.dependencies.submitter.submit(intent, deciding.decide, self.deadline)
        except Contended as error:
            if not conflicts:
                raise
            raise Problem(409, str(error), reason=error.code) from error
        match done:
            case Refused() if deciding.raised is not None:
                raise deciding.raised
            case Refused(reason="metadata_too_large"):
                raise invalid(done.detail)
            case Submitted():
                self.attempted = None
            case Refused():
                self.attempted = replace(attempted, reason=done.reason)
            case Voided():
                self.attempted = replace(attempted, reason=done.void.reason)
        return done

    async def accepted(self, key: str, *, item: str | None = None) -> bool:
        """Return whether the log has accepted this request, or this item of it, on an aggregate before.

        Raises: KeyReused if that was with another body, Unavailable.
        """
        if not self.identity.keyed:
            return False
        found = await self.dependencies.ledger.accepted(Key(key), self._event_id(item))
        if found is not None and found.body_sha256 != self.body_sha256:
            raise KeyReused(KEY_REUSED)
        return found is not None

    def _event_id(self, item: str | None) -> str:
        return self.identity.event_id if item is None else follow_up(self.identity.event_id, item)

    def _path_ids(self) -> JsonObject:
        return {name: canonical_uuid(text) or text for name, text in self.request.path_params.items()}

    def token(self, done: Submitted) -> dict[str, str]:
        """Return the header that names a commit to later reads."""
        return {TOKEN_HEADER: self.dependencies.progress.token(done.place)}


class _CaughtDecision:
    """A decision that turns the refusals that an endpoint raises into values.

    So a retry with an Idempotency-Key gets the first response again, even if the request would be refused now.
    """

    def __init__(self, decide: Callable[[], Awaitable[Decision]]) -> None:
        self._decide = decide
        self.raised: Problem | AgentlogError | None = None

    async def decide(self) -> Decision:
        """Decide; a refusal that was raised is in `raised`. Raises: Unavailable."""
        try:
            return await self._decide()
        except Unavailable:
            raise
        except (Problem, AgentlogError) as error:
            self.raised = error
            return Refused("not_possible")


Handler = Callable[[RequestContext], Awaitable[Response]]
