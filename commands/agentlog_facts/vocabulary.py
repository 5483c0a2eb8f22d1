"""Encoding of commits: wire names and schemas of facts, upcasters of old schemas, commits to bytes and back.

The wire name of a fact is the name of its class. Names and schema numbers are data: never renamed, never reused. A
changed shape is a new schema number and an upcaster. A field that is added to a shape has a default and
`metadata={"added": True}`: it is stored only with another value, so that earlier facts are stored as they were.
"""

import re
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from agentlog_facts.cause_codec import decode_cause, decode_digest, encode_cause, encode_digest, time_out
from agentlog_facts.decoding import guarded
from agentlog_facts.envelope import RULES, SPEC, BlobRef, Demand, Draft, Fact
from agentlog_facts.errors import Corrupt, UnknownSchema
from agentlog_facts.guard import VoidReason
from agentlog_facts.ids import Key, Stream
from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load_object
from agentlog_facts.keyed_digest import KeyedDigest
from agentlog_facts.old_schemas import refused_with_target
from agentlog_facts.stored_fields import list_field, number_field, object_or_none, text_field, text_or_none

FACTS: Mapping[str, type[Fact]] = {cls.__name__: cls for cls in get_args(Fact)}
"""The class of each wire name."""
NAMES: Mapping[type[Fact], str] = {cls: name for name, cls in FACTS.items()}
SCHEMAS: Mapping[str, int] = {**dict.fromkeys(FACTS, 1), "CommandRefused": 2}
"""The newest schema number of each fact type."""
UPCASTERS: Mapping[tuple[str, int], Callable[[JsonObject], JsonObject]] = {("CommandRefused", 1): refused_with_target}
"""(type, schema) -> function that turns its data into that of schema + 1."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ENVELOPE = re.compile(rb'\{"spec":\d+,"rules":\d+,"event_id":"[ !#-\[\]-~]*","append_id":"([ !#-\[\]-~]*)"')
"""The beginning of a record as `encode_commit` writes it."""

_Convert = Callable[[Any], Any]  # Any: a field of any type; the closed set of shapes is below


def _same(value: Any) -> Any:
    return value


def _converters(hint: Any) -> tuple[_Convert, _Convert]:
    """Return (to JSON, from JSON) for a field's annotation; raise TypeError for a shape that facts may not have."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [part for part in get_args(hint) if part is not type(None)]
        if len(inner) == 1:
            out, back = _converters(inner[0])
            return (lambda v: None if v is None else out(v)), (lambda v: None if v is None else back(v))
    if origin is tuple:
        out, back = _converters(get_args(hint)[0])
        return (lambda v: [out(item) for item in v]), (lambda v: tuple(back(item) for item in _expect(v, list)))
    if hint is datetime:
        return time_out, lambda v: datetime.fromisoformat(_expect(v, str))
    if hint is KeyedDigest:
        return encode_digest, lambda v: decode_digest(_expect(v, dict))
    return _same, _checker(hint)


def _checker(hint: Any) -> _Convert:
    base = getattr(hint, "__supertype__", hint)
    if get_origin(base) is Literal:
        base = str
    if base in (str, int, bool):
        return lambda v: _expect(v, base)
    if get_origin(base) is dict:
        return lambda v: _expect(v, dict)
    return _same


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
    return value


@cache
def _plan(name: str) -> tuple[tuple[Field[Any], bool, _Convert, _Convert], ...]:
    cls = FACTS[name]
    hints = get_type_hints(cls, localns={"Json": Json})
    return tuple((f, _required(f), *_converters(hints[f.name])) for f in fields(cls))


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def encode_fact(fact: Fact) -> JsonObject:
    """Return the stored form {type, schema, data} of a fact."""
    name = NAMES[type(fact)]
    data: JsonObject = {}
    for field, _, out, _ in _plan(name):
        value = getattr(fact, field.name)
        if value != field.default or "added" not in field.metadata:
            data[field.name] = out(value)
    return {"type": name, "schema": SCHEMAS[name], "data": data}


def decode_fact(stored: JsonObject) -> Fact:
    """Return the fact, upcast to the newest schema; raise UnknownSchema or Corrupt."""
    name, schema, data = stored.get("type"), stored.get("schema"), stored.get("data")
    if not isinstance(name, str) or not isinstance(schema, int) or not isinstance(data, dict) or schema < 1:
        raise Corrupt("fact: expected {type, schema, data}")
    if name not in FACTS or schema > SCHEMAS[name]:
        raise UnknownSchema(f"fact {name} schema {schema}: not known to this release")
    while schema < SCHEMAS[name]:
        data, schema = UPCASTERS[name, schema](data), schema + 1
    return _build(name, data)


def _build(name: str, data: JsonObject) -> Fact:
    values: dict[str, Any] = {}
    for field, required, _, back in _plan(name):
        if field.name in data:
            try:
                values[field.name] = back(data[field.name])
            except (TypeError, ValueError) as error:
                raise Corrupt(f"fact {name}.{field.name}: {error}") from error
        elif required:
            raise Corrupt(f"fact {name}: field {field.name} is missing")
    return FACTS[name](**values)


def encode_facts(draft: Draft) -> list[Json]:
    """Return the stored forms of all facts of a commit."""
    return [encode_fact(fact) for fact in draft.facts]


def encode_commit(draft: Draft, facts: list[Json], blobs: tuple[BlobRef, ...] = ()) -> bytes:
    """Return the record's value; `facts` come from `encode_facts`, with null in place of each value that is a blob."""
    record: JsonObject = {
        "spec": draft.spec,
        "rules": draft.rules,
        "event_id": draft.event_id,
        "append_id": draft.append_id,
        "body_sha256": draft.body_sha256,
        "stream": draft.stream,
        "demands": dict(draft.demands.items()),
        "epoch": draft.epoch,
        "facts": facts,
        "blobs": [{"at": list(blob.at), "sha256": blob.sha256, "size": blob.size} for blob in blobs],
        "occurred_at": time_out(draft.occurred_at),
        **encode_cause(draft.cause, draft.spec),
        "provenance": draft.provenance,
        "key_id": draft.key_id,
    }
    return dump(record)


def parse_commit(value: bytes) -> JsonObject:
    """Return the record as JSON after checking that this release may judge it; raise Corrupt or UnknownSchema.

    A record without the numbers `spec` and `rules` is corrupt, for this release and every later one.
    """
    with guarded("commit"):
        record = load_object(value, "commit")
    spec, rules = record.get("spec"), record.get("rules")
    if not isinstance(spec, int) or not isinstance(rules, int) or min(spec, rules) < 1:
        raise Corrupt("commit: expected whole numbers spec and rules")
    if spec > SPEC or rules > RULES:
        raise UnknownSchema(f"commit: expected at most spec {SPEC} rules {RULES}, found spec {spec} rules {rules}")
    return record


def append_id_of(value: bytes | None) -> str:
    """Return the append id of a record that cannot be decoded, "" if it does not tell one.

    The writer of such a record waits for its verdict. Our encoder writes the id before everything that can be too deep
    or too long to parse.
    """
    try:
        found = load_object(value or b"").get("append_id")
    except ValueError:
        begins = _ENVELOPE.match(value or b"")
        found = None if begins is None else begins[1].decode()
    return found if isinstance(found, str) else ""


def blob_refs(record: JsonObject) -> tuple[BlobRef, ...]:
    """Return the blobs that a parsed record names. Raises: Corrupt."""
    with guarded("commit"):
        return tuple(_blob_ref(as_object(ref, "blob")) for ref in list_field(record, "blobs"))


def _blob_ref(ref: JsonObject) -> BlobRef:
    at = tuple(step for step in list_field(ref, "at") if isinstance(step, (str, int)))
    sha256 = text_field(ref, "sha256")
    if not _SHA256.fullmatch(sha256):  # no value can ever have this digest
        raise ValueError(f"blob: expected a digest, found {sha256[:100]!r}")
    return BlobRef(at, sha256, number_field(ref, "size"))


def place_blob(record: JsonObject, ref: BlobRef, value: Json) -> None:
    """Put the value of a blob into a parsed record, where `ref` names it. Raises: Corrupt."""
    with guarded("commit"):
        match ref.at, record.get("facts"):
            case (int(number), "data", str(name)), list() as facts if number < len(facts):
                as_object(as_object(facts[number], "fact")["data"], "data")[name] = value
            case _:
                raise ValueError(f"a blob is named at {ref.at}, which is no value of a fact")


def decode_commit(key: str, record: JsonObject) -> Draft:
    """Return the commit of a parsed record whose blobs are in place; raise Corrupt or UnknownSchema."""
    with guarded("commit"):
        return _decode(key, record)


def _decode(key: str, record: JsonObject) -> Draft:
    stored = [decode_fact(as_object(fact, "fact")) for fact in list_field(record, "facts")]
    if not stored:
        raise Corrupt("commit: no facts")
    epoch = record.get("epoch")
    return Draft(
        key=Key(key),
        stream=Stream(text_field(record, "stream")),
        event_id=text_field(record, "event_id"),
        append_id=text_field(record, "append_id"),
        body_sha256=text_field(record, "body_sha256"),
        facts=tuple(stored),
        occurred_at=datetime.fromisoformat(text_field(record, "occurred_at")).astimezone(UTC),
        cause=decode_cause(record),
        demands={Stream(name): _demand(value) for name, value in as_object(record["demands"], "demands").items()},
        epoch=None if epoch is None else number_field(record, "epoch"),
        provenance=object_or_none(record, "provenance"),
        key_id=text_or_none(record, "key_id"),
        spec=_version(record, "spec"),
        rules=_version(record, "rules"),
    )


def _version(record: JsonObject, name: str) -> int:
    value = record.get(name)
    if not isinstance(value, int):
        raise ValueError(f"{name}: expected a whole number")
    return int(value)  # rules 1 took `true` for 1


def _demand(value: Json) -> Demand:
    if value == "absent" or value == "exists":
        return cast(Demand, value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"demand: expected absent, exists or a version, found {value!r}")


def void_reason(text: str) -> VoidReason:
    """Narrow stored text to a reason of the guard; raise ValueError for another one."""
    if text not in get_args(VoidReason):
        raise ValueError(f"void: unknown reason {text}")
    return cast(VoidReason, text)
