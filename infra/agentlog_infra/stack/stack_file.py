"""The file `stack.json` of a data directory: its servers, and the roles that joined them.

Several processes write it. Each does so under a lock and keeps the entries of the others; ended roles are removed.
"""

import fcntl
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TypeAlias

from agentlog_facts.json_value import Json, JsonObject, as_object, load_object
from agentlog_infra.process.child import ProcessIdentity, folder_identity, identify, write_atomically
from agentlog_infra.stack.data_dir import DataDir

Roles: TypeAlias = "list[JoinedRole]"


@dataclass(frozen=True, slots=True)
class JoinedRole:
    """A role process that was started apart from the servers; `url` is the address of a gateway, else None."""

    role: str
    pid: int
    started: str
    url: str | None = None

    def alive(self) -> bool:
        """Return whether it still runs."""
        return ProcessIdentity(self.pid, self.started).alive()


def write_stack(data_dir: DataDir, entries: Mapping[str, object]) -> None:
    """Write the entries of the owner of the servers."""
    with _locked(data_dir):
        _write(data_dir, {**entries, "roles": [asdict(one) for one in living_roles(_read(data_dir))]})


def join_roles(data_dir: DataDir, role: str, pid: int, url: str | None) -> None:
    """Add a process to the roles of a running stack; do nothing if none runs."""
    process = identify(pid)
    if not data_dir.stack_file.exists():
        return
    with _locked(data_dir):
        found = _read(data_dir)
        if process is None or not found:
            return
        roles = [*living_roles(found), JoinedRole(role, process.pid, process.started, url)]
        _write(data_dir, {**found, "roles": [asdict(one) for one in roles]})


def living_roles(found: Mapping[str, Json]) -> Roles:
    """Return the roles of a file that still run. Raises: KeyError if one lacks a field."""
    listed = found.get("roles")
    roles = [_role(as_object(one)) for one in listed] if isinstance(listed, list) else []
    return [one for one in roles if one.alive()]


def _role(entry: JsonObject) -> JoinedRole:
    url = entry["url"]
    return JoinedRole(
        str(entry["role"]), int(str(entry["pid"])), str(entry["started"]), None if url is None else str(url)
    )


def is_own(data_dir: DataDir, found: Mapping[str, object]) -> bool:
    """Return whether a file describes this data directory: a copied one describes the original."""
    return found.get("home") == folder_identity(data_dir.root)


def _read(data_dir: DataDir) -> JsonObject:
    try:
        found = load_object(data_dir.stack_file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if is_own(data_dir, found) else {}


def _write(data_dir: DataDir, content: Mapping[str, object]) -> None:
    marked = {**content, "home": folder_identity(data_dir.root)}
    write_atomically(data_dir.stack_file, json.dumps(marked, indent=2) + "\n")


@contextmanager
def _locked(data_dir: DataDir) -> Generator[None]:
    with (data_dir.run / "stack.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
