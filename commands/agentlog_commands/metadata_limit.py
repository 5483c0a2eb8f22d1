"""Limit of the metadata that a request brings: its size as JSON, and the number of its values.

Metadata is indexed for searches, so it costs far more than the values of a thread, and PostgreSQL bounds what it can
hold.
"""

from dataclasses import dataclass

from agentlog_commands.command import Refused
from agentlog_facts.json_value import Json, JsonObject, dump

MAX_BYTES = 1024 * 1024
MAX_VALUES = 10_000
_SMALL = 16
"""A change below this part of the limit needs no version of the metadata that it changes."""


@dataclass(frozen=True, slots=True)
class MetadataLimit:
    """At most `max_bytes` of JSON, and `max_values` values: objects, lists and their members, at every level."""

    max_bytes: int = MAX_BYTES
    max_values: int = MAX_VALUES

    def refusal(self, given: JsonObject, name: str = "metadata") -> Refused | None:
        """Return the refusal of an object that is too large; it names the object `name`. None if it is not."""
        if self.holds(given):
            return None
        limit = f"at most {self.max_bytes} bytes of JSON and {self.max_values} values are allowed"
        return Refused("metadata_too_large", f"{name} is too large: {limit}")

    def holds(self, given: JsonObject) -> bool:
        """Return whether an object is within the limit; the cost is bounded by the limit, not by the object."""
        return self._few_values(given) and len(dump(given)) <= self.max_bytes

    def part(self, divisor: int = _SMALL) -> "MetadataLimit":
        """Return a part of this limit."""
        return MetadataLimit(self.max_bytes // divisor, self.max_values // divisor)

    def _few_values(self, given: JsonObject) -> bool:
        """Return whether the values are few, and their texts not longer than all bytes."""
        waiting: list[Json] = [given]
        values = length = 0
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                values += len(value)
                length += sum(map(len, value)) if values <= self.max_values else 0
                waiting += value.values() if values <= self.max_values else ()
            elif isinstance(value, list):
                values += len(value)
                waiting += value if values <= self.max_values else ()
            elif isinstance(value, str):
                length += len(value)
            if values > self.max_values or length > self.max_bytes:
                return False
        return True


DEFAULT = MetadataLimit()
