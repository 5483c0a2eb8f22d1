"""Encoding of the cause of a commit: actor, delegations, authorisation, request and ids, by the `spec` of the commit.

Spec 1 had a list of names in `on_behalf_of`, no `authz`, and no `client` in `request`; its commits are read and written
as they were.
"""

from datetime import UTC, datetime
from typing import Literal

from agentlog_facts.envelope import Actor, Authorization, Cause, Delegation, Request
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_facts.keyed_digest import KeyedDigest
from agentlog_facts.stored_fields import list_field, text_field, text_or_none, texts_or_none


def encode_cause(cause: Cause, spec: int) -> JsonObject:
    """Return the fields of the envelope that tell a cause, in their order."""
    chain = cause.on_behalf_of
    first = spec == 1
    return {
        "actor": _actor_out(cause.actor),
        "on_behalf_of": [one.principal for one in chain] if first else [_delegation_out(one) for one in chain],
        **({} if first else {"authz": None if cause.authz is None else _authorization_out(cause.authz)}),
        "correlation_id": cause.correlation_id,
        "causation_id": cause.causation_id,
        "traceparent": cause.traceparent,
        "request": None if cause.request is None else _request_out(cause.request, spec),
    }


def decode_cause(record: JsonObject) -> Cause:
    """Return the cause of a record. Raises: ValueError, KeyError."""
    actor, request, spec = _actor(as_object(record["actor"], "actor")), record.get("request"), record["spec"]
    authz = None if spec == 1 else record.get("authz")
    return Cause(
        actor=actor,
        correlation_id=text_field(record, "correlation_id"),
        causation_id=text_or_none(record, "causation_id"),
        on_behalf_of=_chain(record, actor),
        traceparent=text_or_none(record, "traceparent"),
        request=None if request is None else _request(as_object(request, "request"), spec),
        authz=None if authz is None else _authorization(as_object(authz, "authz")),
    )


def encode_digest(digest: KeyedDigest) -> JsonObject:
    """Return the stored form of a digest."""
    return {"digest": digest.digest, "salt_id": digest.salt_id}


def decode_digest(stored: JsonObject) -> KeyedDigest:
    """Return a stored digest. Raises: ValueError."""
    return KeyedDigest(text_field(stored, "digest"), text_or_none(stored, "salt_id"))


def _chain(record: JsonObject, actor: Actor) -> tuple[Delegation, ...]:
    stored = list_field(record, "on_behalf_of")
    if record["spec"] != 1:
        return tuple(_delegation(as_object(one, "on_behalf_of")) for one in stored)
    names = [str(name) for name in stored]  # each acted for the one before it, and the actor for the last one
    return tuple(Delegation(name, after) for name, after in zip(names, [*names, actor.sub][1:], strict=True))


def _delegation_out(one: Delegation) -> JsonObject:
    """Return a delegation with the optional fields that have a value."""
    told: JsonObject = {
        "issuer": one.issuer,
        "scopes": None if one.scopes is None else list(one.scopes),
        "audience": one.audience,
        "grant_id": one.grant_id,
        "parent_id": one.parent_id,
        "expires_at": None if one.expires_at is None else time_out(one.expires_at),
    }
    known = {name: value for name, value in told.items() if value is not None}
    return {"principal": one.principal, "delegate": one.delegate, **known}


def _delegation(stored: JsonObject) -> Delegation:
    expires_at = text_or_none(stored, "expires_at")
    return Delegation(
        principal=text_field(stored, "principal"),
        delegate=text_field(stored, "delegate"),
        issuer=text_or_none(stored, "issuer"),
        scopes=texts_or_none(stored, "scopes"),
        audience=text_or_none(stored, "audience"),
        grant_id=text_or_none(stored, "grant_id"),
        parent_id=text_or_none(stored, "parent_id"),
        expires_at=None if expires_at is None else datetime.fromisoformat(expires_at).astimezone(UTC),
    )


def _authorization_out(authz: Authorization) -> JsonObject:
    return {
        "decision": authz.decision,
        "policy": authz.policy,
        "policy_digest": authz.policy_digest,
        "scopes": list(authz.scopes),
        "filter_digest": None if authz.filter_digest is None else encode_digest(authz.filter_digest),
    }


def _authorization(stored: JsonObject) -> Authorization:
    filtered = stored.get("filter_digest")
    return Authorization(
        decision=_decision(text_field(stored, "decision")),
        policy=text_field(stored, "policy"),
        policy_digest=text_field(stored, "policy_digest"),
        scopes=texts_or_none(stored, "scopes") or (),
        filter_digest=None if filtered is None else decode_digest(as_object(filtered, "filter_digest")),
    )


def _decision(text: str) -> Literal["allow", "deny"]:
    match text:
        case "allow" | "deny":
            return text
        case _:
            raise ValueError(f"authz: expected the decision allow or deny, found {text[:100]!r}")


def _actor_out(actor: Actor) -> JsonObject:
    return {
        "kind": actor.kind,
        "sub": actor.sub,
        "iss": actor.iss,
        "method": actor.method,
        "credential_id": actor.credential_id,
        "ip_hash": actor.ip_hash,
    }


def _actor(stored: JsonObject) -> Actor:
    return Actor(
        kind=text_field(stored, "kind"),  # type: ignore[arg-type]  # history may hold a kind of a later release
        sub=text_field(stored, "sub"),
        iss=text_or_none(stored, "iss"),
        method=text_field(stored, "method"),
        credential_id=text_or_none(stored, "credential_id"),
        ip_hash=text_or_none(stored, "ip_hash"),
    )


def _request_out(request: Request, spec: int) -> Json:
    told: JsonObject = {"id": request.id, "method": request.method, "route": request.route}
    return told if spec == 1 else told | {"client": request.client}


def _request(stored: JsonObject, spec: Json) -> Request:
    client = None if spec == 1 else text_or_none(stored, "client")
    return Request(text_field(stored, "id"), text_field(stored, "method"), text_field(stored, "route"), client)


def time_out(value: datetime) -> str:
    """Return a time as the log holds it: UTC with microseconds."""
    return value.astimezone(UTC).isoformat(timespec="microseconds")
