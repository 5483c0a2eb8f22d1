"""Digest of a message that shows whether the object was changed in place, at the speed of compiled code.

Pickle writes each built-in type in a form of its own, other than JSON: a text is not a decimal, a tuple is not a list,
NaN is not null. So equal bytes are equal values, as long as no part has a class with a form of its own making. Most
messages hold only texts, and these are compared themselves: the same object is equal at once.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping
from typing import NoReturn, TypeAlias

from agentlog_infra.langgraph.checkpoints.channel_codec import is_message

PROTOCOL = 4
"""Later protocols have forms for buffers, which do not identify them."""


Digest: TypeAlias = bytes | tuple[object, ...]
"""A hash, or the fields of a message whose parts are all immutable."""


def message_digest(value: object) -> Digest | None:
    """Return the digest of a message, None for another value and for a message with parts of types not built in.

    Messages with equal digests are equal at any depth, also in the types of their parts.
    """
    if not is_message(value):
        return None
    return _plain_fields(type(value), value.__dict__, getattr(value, "__pydantic_extra__", None)) or _hashed(value)


def _plain_fields(
    kind: type, fields: Mapping[str, object], extra: Mapping[str, object] | None
) -> tuple[object, ...] | None:
    """Return the fields if each is a text, a truth value, None or an empty container; None otherwise."""
    if extra:
        return None
    found: list[object] = [kind, *fields]
    for part in fields.values():
        of = type(part)
        if of is str or part is None or of is bool:
            found.append(part)
        elif (of is list or of is dict) and not part:
            found.append(of)
        else:
            return None
    return tuple(found)


def _hashed(value: object) -> bytes | None:
    written = io.BytesIO()
    try:
        pickler = _BuiltInPickler(written, PROTOCOL)
        pickler.fast = True  # without references, so that equal values have equal bytes
        pickler.dump((type(value).__name__, value.__dict__, getattr(value, "__pydantic_extra__", None)))
    except (_OtherType, pickle.PicklingError, ValueError, RecursionError):
        return None
    return hashlib.blake2b(written.getvalue(), digest_size=16).digest()


class _OtherType(Exception):
    """A value has a part whose type is not built in."""


class _BuiltInPickler(pickle.Pickler):
    """Refuses all types for which pickle has no form of its own, so it runs no user code."""

    def reducer_override(self, obj: object) -> NoReturn:
        raise _OtherType
