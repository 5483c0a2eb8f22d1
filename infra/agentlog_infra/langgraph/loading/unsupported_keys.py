"""Unsupported keys of `langgraph.json` and of its JSON variables: those that forbid a start, and those to warn of.

A key forbids the start if ignoring it would grant access that the key denies, or change the behaviour that clients and
graphs see. The module imports nothing of LangGraph.

Source: langgraph.json and its JSON variables as documented for the LangGraph CLI and server.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentlog_facts.errors import Misconfigured
from agentlog_facts.json_value import Json, JsonObject, load
from agentlog_facts.version import VERSION

NOT_YET = f"not supported yet by agentlog {VERSION}; remove it to run without it"
VARIABLES: Mapping[str, str] = {
    "LANGGRAPH_AUTH": "auth",
    "LANGGRAPH_CHECKPOINTER": "checkpointer",
    "LANGGRAPH_ENCRYPTION": "encryption",
    "LANGGRAPH_HTTP": "http",
    "LANGGRAPH_PRIORITY": "priority",
    "LANGGRAPH_STORE": "store",
    "LANGGRAPH_UI": "ui",
    "LANGGRAPH_UI_CONFIG": "ui_config",
    "LANGGRAPH_WEBHOOKS": "webhooks",
}
"""JSON variables with the key of the file that each of them overrides."""

_REFUSED_VARIABLES: Mapping[str, frozenset[str]] = {
    "LANGGRAPH_AUTH_TYPE": frozenset({"noop"}),
    "MOUNT_PREFIX": frozenset({"/"}),
}
"""Variables without a key of the file, with their values that have no effect."""

_REFUSED = frozenset({"auth", "encryption"})
_WARNED = frozenset({"priority", "ui", "ui_config", "webhooks"})
_SUPPORTED: Mapping[str, frozenset[str]] = {
    # A key that disables a missing part is supported: that part answers 404 anyway.
    "http": frozenset({"cors", "disable_a2a", "disable_mcp", "disable_store", "disable_ui", "disable_webhooks"}),
    "checkpointer": frozenset({"ttl"}),
    "store": frozenset(),
}
_ONLY_WARNED: Mapping[str, frozenset[str]] = {
    "http": frozenset({"logging_headers", "middleware_order"}),
    "store": frozenset({"ttl"}),
}


@dataclass(frozen=True, slots=True)
class UnsupportedKey:
    """A key or variable without effect; if `refused`, the server does not start with it."""

    key: str
    refused: bool


def overridden(document: JsonObject, environment: Mapping[str, str]) -> JsonObject:
    """Return the document with the values of JSON variables in place of its own. Raises: Misconfigured."""
    return {**document, **{VARIABLES[name]: _json(name, environment) for name in VARIABLES if environment.get(name)}}


def find_unsupported(document: JsonObject, environment: Mapping[str, str]) -> tuple[UnsupportedKey, ...]:
    """Return the keys and variables without effect, in order. Raises: Misconfigured for a section that is no object."""
    found = [UnsupportedKey(key, key in _REFUSED) for key in sorted(_REFUSED | _WARNED) if document.get(key)]
    for section in _SUPPORTED:
        found += _of_section(section, document.get(section))
    for name, harmless in _REFUSED_VARIABLES.items():
        if environment.get(name) and environment[name] not in harmless:
            found.append(UnsupportedKey(name, True))
    return tuple(found)


def refuse(path: Path, found: Iterable[UnsupportedKey]) -> None:
    """Raise Misconfigured, with one line for each key that forbids a start."""
    lines = [f"{path}: {one.key}: {NOT_YET}" for one in found if one.refused]
    if lines:
        raise Misconfigured("\n".join(lines))


def _of_section(section: str, given: Json) -> list[UnsupportedKey]:
    if given is None:
        return []
    if not isinstance(given, dict):
        raise Misconfigured(f"{section}: expected an object, found {given!r}")
    wanted = [key for key, value in sorted(given.items()) if _has_effect(key, value) and key not in _SUPPORTED[section]]
    return [UnsupportedKey(f"{section}.{key}", key not in _ONLY_WARNED.get(section, ())) for key in wanted]


def _has_effect(key: str, value: Json) -> bool:
    """Return whether a value has an effect: it is not empty, not false, and not the default."""
    return bool(value) and [key, value] not in (["backend", "default"], ["mount_prefix", "/"])


def _json(name: str, environment: Mapping[str, str]) -> Json:
    try:
        return load(environment[name])
    except ValueError as error:
        raise Misconfigured(f"{name}: expected JSON: {error}") from error
