"""Digest of a message that shows whether the object was changed in place, at the speed of compiled code.

Pickle writes each built-in type in a form of its own, other than JSON: a text is not a decimal, a tuple is not a list,
NaN is not null. So equal bytes are equal values, as long as no part has a class with a form of its own making.
"""

import hashlib
import io
import pickle
from typing import NoReturn

from agentlog_infra.langgraph.checkpoints.channel_codec import is_message

PROTOCOL = 4
"""Later protocols have forms for buffers, which do not identify them."""


def message_digest(value: object) -> bytes | None:
    """Return a hash of a message, None for another value and for a message with parts of types that are not built in.

    Messages with the same hash are equal at any depth, also in the types of their parts.
    """
    if not is_message(value):
        return None
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
