"""Decides which keys of `langgraph.json` are not kept yet: which of them forbid a start, and which are only told.

A key whose silent absence would open what it closes, or change what clients and graphs see, forbids it. Imports nothing
of LangGraph. Source: langgraph.json and its JSON variables as documented for the LangGraph CLI and server.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentlog_facts.errors import Misconfigured
from agentlog_facts.json_value import Json, JsonObject, load
from agentlog_facts.version import VERSION

NOT_YET = f"not supported yet by agentlog {VERSION}; take it out to run without it"
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
"""JSON variables that stand for a key of the file, and win over it."""

_REFUSED_VARIABLES: Mapping[str, frozenset[str]] = {
    "LANGGRAPH_AES_KEY": frozenset(),
    "LANGGRAPH_AUTH_TYPE": frozenset({"noop"}),
    "MOUNT_PREFIX": frozenset({"/"}),
}
"""Variables that stand for themselves, with the values that ask for nothing."""

_REFUSED = frozenset({"auth", "encryption"})
_TOLD = frozenset({"priority", "ui", "ui_config", "webhooks"})
_KEPT: Mapping[str, frozenset[str]] = {
    # What disables a part that is not there yet is kept: it answers 404 as wanted.
    "http": frozenset({"cors", "disable_a2a", "disable_mcp", "disable_store", "disable_ui", "disable_webhooks"}),
    "checkpointer": frozenset(),
    "store": frozenset(),
}
_ONLY_TOLD: Mapping[str, frozenset[str]] = {
    "http": frozenset({"logging_headers", "middleware_order"}),
    "checkpointer": frozenset({"ttl"}),
    "store": frozenset({"ttl"}),
}


@dataclass(frozen=True, slots=True)
class UnsupportedKey:
    """A key, or a variable, that has no effect; `refused`: the server does not start with it."""

    key: str
    refused: bool


def settled(document: JsonObject, environment: Mapping[str, str]) -> JsonObject:
    """Return the document with what the JSON variables say in place of its keys. Raises: Misconfigured."""
    return {**document, **{VARIABLES[name]: _json(name, environment) for name in VARIABLES if environment.get(name)}}


def unkept(document: JsonObject, environment: Mapping[str, str]) -> tuple[UnsupportedKey, ...]:
    """Return what is asked for in vain, in order. Raises: Misconfigured for a key that is not an object."""
    found = [UnsupportedKey(key, key in _REFUSED) for key in sorted(_REFUSED | _TOLD) if document.get(key)]
    for section in _KEPT:
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
    wanted = [key for key, value in sorted(given.items()) if _asks(key, value) and key not in _KEPT[section]]
    return [UnsupportedKey(f"{section}.{key}", key not in _ONLY_TOLD[section]) for key in wanted]


def _asks(key: str, value: Json) -> bool:
    """Tell whether a value asks for something: not what is empty or false, and not the default by its name."""
    return bool(value) and [key, value] not in (["backend", "default"], ["mount_prefix", "/"])


def _json(name: str, environment: Mapping[str, str]) -> Json:
    try:
        return load(environment[name])
    except ValueError as error:
        raise Misconfigured(f"{name}: expected JSON: {error}") from error
