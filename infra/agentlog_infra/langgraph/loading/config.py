"""Reader of `langgraph.json`: the graphs to serve, their sources and their environment.

It imports nothing of LangGraph. Source: langgraph.json as documented for the LangGraph CLI.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentlog_facts.errors import Misconfigured
from agentlog_facts.json_value import Json, JsonObject, load_object
from agentlog_infra.langgraph.loading.unsupported_keys import UnsupportedKey, find_unsupported, overridden, refuse
from agentlog_infra.project_env import environment_of

log = logging.getLogger(__name__)

NAME_IT = "name your langgraph.json with --config or AGENTLOG_CONFIG"
"""Remedy for a file that does not exist."""
KNOWN = frozenset(
    {
        "$schema",
        "api_version",
        "auth",
        "base_image",
        "checkpointer",
        "dependencies",
        "dockerfile_lines",
        "encryption",
        "env",
        "graphs",
        "http",
        "image_distro",
        "keep_pkg_tools",
        "node_version",
        "pip_config_file",
        "pip_installer",
        "priority",
        "python_version",
        "source",
        "store",
        "ui",
        "ui_config",
        "webhooks",
    }
)


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One graph to serve: `source` is a file (`./agent.py`) or a module, `attribute` a (dotted) name in it."""

    graph_id: str
    source: str
    attribute: str
    description: str | None = None

    @property
    def is_file(self) -> bool:
        """Return whether `source` is a path."""
        return self.source.endswith(".py") or "/" in self.source


@dataclass(frozen=True, slots=True)
class GraphsConfig:
    """A checked `langgraph.json`; `root` is its folder, `env` holds the variables for user code.

    `document` is the complete file; values of variables such as LANGGRAPH_HTTP replace its keys.
    """

    path: Path
    graphs: tuple[GraphSpec, ...]
    dependencies: tuple[str, ...]
    env: Mapping[str, str]
    document: JsonObject

    @property
    def root(self) -> Path:
        """Return the project's folder."""
        return self.path.parent


def load_config(path: Path) -> GraphsConfig:
    """Read and check a `langgraph.json`, and log a warning for each key without effect.

    Raises Misconfigured, naming file and key, also for keys that must not be ignored.
    """
    path = path.resolve()
    document, env, found = _read(path)
    refuse(path, found)
    for key in sorted(document.keys() - KNOWN):
        log.warning("config.unknown_key", extra={"path": str(path), "key": key})
    for unsupported in found:
        log.warning("config.key_without_effect", extra={"path": str(path), "key": unsupported.key})
    return GraphsConfig(path, _graphs(path, document), _dependencies(path, document), env, document)


def graph_ids(path: Path) -> Sequence[str]:
    """Return the ids of the graphs that a `langgraph.json` names, in its order. Raises: Misconfigured."""
    if not path.exists():
        raise Misconfigured(f"{path} does not exist: {NAME_IT}")
    path = path.resolve()
    document, _, _ = _read(path)
    return [spec.graph_id for spec in _graphs(path, document)]


def served_graphs(path: Path) -> frozenset[str] | None:
    """Return the ids of the graphs that a `langgraph.json` names now, None if it cannot be read."""
    try:
        return frozenset(graph_ids(path))
    except Misconfigured as error:
        log.debug("config.unreadable", extra={"path": str(path), "error": str(error)})
        return None


def unsupported_keys(path: Path) -> tuple[UnsupportedKey, ...]:
    """Return the keys of a `langgraph.json` and the variables that have no effect. Raises: Misconfigured."""
    return _read(path.resolve())[2]


def _read(path: Path) -> tuple[JsonObject, Mapping[str, str], tuple[UnsupportedKey, ...]]:
    """Return the document, its environment, and the unsupported keys of both."""
    try:
        document = load_object(path.read_bytes(), "the file")
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Misconfigured(f"{path}: {error}") from error
    env = environment_of(path, document)
    environment = {**env, **os.environ}
    document = overridden(document, environment)
    return document, env, find_unsupported(document, environment)


def _graphs(path: Path, document: JsonObject) -> tuple[GraphSpec, ...]:
    named = document.get("graphs")
    if not isinstance(named, dict) or not named:
        raise Misconfigured(f'{path}: graphs: expected {{"<id>": "./file.py:attribute"}}, found {_shown(named)}')
    return tuple(_spec(path, graph_id, value) for graph_id, value in named.items())


def _spec(path: Path, graph_id: str, value: Json) -> GraphSpec:
    stated: JsonObject = value if isinstance(value, dict) else {"path": value}
    target, description = stated.get("path"), stated.get("description")
    source, colon, attribute = target.rpartition(":") if isinstance(target, str) else ("", "", "")
    if not colon or not source or not attribute:
        expected = "expected ./file.py:attribute or module:attribute"
        raise Misconfigured(f"{path}: graphs.{graph_id}: {expected}, found {_shown(value)}")
    return GraphSpec(graph_id, source, attribute, description if isinstance(description, str) else None)


def _dependencies(path: Path, document: JsonObject) -> tuple[str, ...]:
    named = document.get("dependencies", [])
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise Misconfigured(f"{path}: dependencies: expected a list of paths and packages, found {_shown(named)}")
    return tuple(str(name) for name in named)


def _shown(value: Json) -> str:
    return "nothing" if value is None else repr(value)
