"""Extraction paths of a thread search: `alias: path`. Source: docs/http-api.md, section 5.3."""

import re
from collections.abc import Mapping
from typing import TypeAlias

from agentlog_facts.json_value import Json, JsonObject
from agentlog_gateway.http.errors import invalid

Path: TypeAlias = tuple[str | int, ...]
ROOTS = frozenset({"values", "metadata", "config", "interrupts"})
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(-?[0-9]{1,9})\]")


def extraction_paths(extract: Mapping[str, str] | None) -> dict[str, Path]:
    """Parse the paths. Raises: Problem 422."""
    return {_alias(alias): _path(path) for alias, path in (extract or {}).items()}


def _alias(alias: str) -> str:
    if not alias.isidentifier():
        raise invalid(f"extract: {alias!r} is not an identifier")
    return alias


def _path(text: str) -> Path:
    steps: list[str | int] = []
    place = 0
    while place < len(text):
        found = _STEP.match(text, place)
        if found is None:
            raise invalid(f"extract: cannot read the path {text!r}")
        steps.append(int(found[2]) if found[1] is None else found[1])
        place = found.end()
    if not steps or steps[0] not in ROOTS:
        raise invalid(f"extract: the path {text!r} must start with one of {', '.join(sorted(ROOTS))}")
    return tuple(steps)


def extracted(thread: JsonObject, paths: Mapping[str, Path]) -> JsonObject:
    """Return {"extracted": {alias: value}}, {} without paths; a missing value is null."""
    return {"extracted": {alias: _at(thread, path) for alias, path in paths.items()}} if paths else {}


def _at(value: Json, path: Path) -> Json:
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value
