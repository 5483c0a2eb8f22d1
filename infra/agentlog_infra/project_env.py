"""Environment of a project: the `env` of its `langgraph.json`, an object or the path of a file of NAME=value lines."""

from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from agentlog_facts.errors import Misconfigured
from agentlog_facts.json_value import Json, JsonObject, load_object

APPLICATION = frozenset({"DATABASE_URI", "POSTGRES_URI", "REDIS_URI"})
"""Addresses that a project's environment gives to the project's own code, never to the server."""
PRIVATE = (
    "AGENTLOG_DATABASE_URI",
    "AGENTLOG_REDIS_URI",
    "AGENTLOG_KAFKA_SASL_PASSWORD",
    "AGENTLOG_KAFKA_SSL_KEYPASSWORD",
)
"""Variables of the server that user code must not see: they open its database, its queue and its log."""


def project_environment(path: Path) -> Mapping[str, str]:
    """Return the environment that a `langgraph.json` names; empty if the file cannot be read, which its loader reports.

    Raises: Misconfigured for an environment that cannot be read.
    """
    try:
        document = load_object(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return environment_of(path, document)


def environment_of(path: Path, document: JsonObject) -> Mapping[str, str]:
    """Return the environment of a parsed `langgraph.json`. Raises: Misconfigured."""
    found = _given(path, document.get("env", {}))
    for name, value in found.items():
        if not name or "=" in name or "\0" in name:
            raise Misconfigured(f"{path}: env: {name!r}: expected a name without = and NUL")
        if "\0" in value:
            raise Misconfigured(f"{path}: env: {name}: expected a value without NUL")
    return found


def _given(path: Path, env: Json) -> dict[str, str]:
    if isinstance(env, dict):
        return {name: str(value) for name, value in env.items() if value is not None}
    if isinstance(env, str) and (path.parent / env).is_file():
        file = path.parent / env
        try:
            return {name: value for name, value in dotenv_values(file).items() if value is not None}
        except UnicodeDecodeError as error:
            raise Misconfigured(f"{path}: env: {file}: expected UTF-8: {error.reason} at byte {error.start}") from error
        except OSError as error:
            raise Misconfigured(f"{path}: env: {file}: cannot be read: {error.strerror}") from error
    shown = "nothing" if env is None else repr(env)
    raise Misconfigured(f"{path}: env: expected an object or the path of a file, found {shown}")
