"""Permission of a read to run code of users: validators, reducers, and the classes of channels and stored values.

A read on the loop that serves requests has none: code that blocks would delay every other request.
"""

# pyright: reportMissingTypeStubs=false
# (these parts of langgraph are not in our stubs)

import base64

import ormsgpack
from langgraph.channels.base import BaseChannel
from langgraph.channels.binop import BinaryOperatorAggregate
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_TYPES

from agentlog_facts.checkpoint import Encoded
from agentlog_facts.errors import AgentlogError

BARE = frozenset({"null", "bytes", "bytearray"})
"""Tags of stored values that are no objects."""


class UserCodeNeeded(AgentlogError):
    """A read without permission needs code of users."""

    code = "user_code_needed"


class UserCode:
    """The permission of one read."""

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed

    @property
    def is_forbidden(self) -> bool:
        """Return whether the read succeeds only without code of users, so that the same rows give the same result."""
        return not self._allowed

    def run(self) -> None:
        """Check the permission before code of users runs. Raises: UserCodeNeeded."""
        if not self._allowed:
            raise UserCodeNeeded("code of users runs apart from the loop that serves requests")

    def decode(self, value: Encoded) -> None:
        """Check the permission before a value is decoded. Raises: UserCodeNeeded if it has a class of users."""
        if not self._allowed and _has_class_of_users(value):
            self.run()


def is_class_of_users(channel: BaseChannel[object, object, object]) -> bool:
    """Return whether code of users makes the object of a channel: its class, or the class of its first value."""
    kinds = {type(channel), channel.typ} if isinstance(channel, BinaryOperatorAggregate) else {type(channel)}
    return any(getattr(kind, "__module__", "").split(".")[0] not in ("langgraph", "builtins") for kind in kinds)


def _has_class_of_users(value: Encoded) -> bool:
    match value:
        case {"items": list(items)}:
            return any(map(_has_class_of_users, items))
        case {"interrupt": {"value": inner}} | {"send": {"arg": inner}}:
            return _has_class_of_users(inner)
        case {"type": "msgpack", "base64": str(text)}:
            return not _classes(base64.b64decode(text)) <= SAFE_MSGPACK_TYPES
        case {"type": str(tag), "base64": str()}:
            return tag not in BARE
        case _:
            return False


def _classes(data: bytes) -> set[tuple[str, ...]]:
    """Return (module, name) of each object in a value, without making the objects."""
    found: set[tuple[str, ...]] = set()

    def note(code: int, inner: bytes) -> None:
        match ormsgpack.unpackb(inner, ext_hook=note, option=ormsgpack.OPT_NON_STR_KEYS):
            case [str(module), str(name), *_]:
                found.add((module, name))
            case _:
                pass  # an array of numpy, or the value of a snapshot of a `DeltaChannel`

    ormsgpack.unpackb(data, ext_hook=note, option=ormsgpack.OPT_NON_STR_KEYS)
    return found
