"""Checked reads of the fields of a stored JSON object; each raises a ValueError that names the field."""

from agentlog_facts.json_value import Json, JsonObject, as_object


def list_field(stored: JsonObject, name: str) -> list[Json]:
    """Return a list; an absent field is an empty one."""
    value = stored.get(name, [])
    if not isinstance(value, list):
        raise ValueError(f"{name}: expected a list")
    return value


def text_field(stored: JsonObject, name: str) -> str:
    """Return a text."""
    value = stored.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a string")
    return value


def text_or_none(stored: JsonObject, name: str) -> str | None:
    """Return a text, None for null and for an absent field."""
    return None if stored.get(name) is None else text_field(stored, name)


def number_field(stored: JsonObject, name: str) -> int:
    """Return a whole number."""
    value = stored.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name}: expected a whole number")
    return value


def object_or_none(stored: JsonObject, name: str) -> JsonObject | None:
    """Return an object, None for null and for an absent field."""
    value = stored.get(name)
    return None if value is None else as_object(value, name)


def texts_or_none(stored: JsonObject, name: str) -> tuple[str, ...] | None:
    """Return a list of texts, None for null and for an absent field."""
    if stored.get(name) is None:
        return None
    values = list_field(stored, name)
    texts = tuple(value for value in values if isinstance(value, str))
    if len(texts) != len(values):
        raise ValueError(f"{name}: expected a list of strings")
    return texts
