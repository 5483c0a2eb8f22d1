"""The file `stack.json` of a data directory: its servers, and the roles that joined them.

Several processes write it, so each does it under a lock and leaves what the others say; roles that ended drop out.
"""

import fcntl
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TypeAlias

from agentlog_facts.json_value import Json, JsonObject, as_object, load_object
from agentlog_infra.process.child import ProcessIdentity, identify, write_atomically
from agentlog_infra.stack.data_dir import DataDir

Roles: TypeAlias = "list[JoinedRole]"


@dataclass(frozen=True, slots=True)
class JoinedRole:
    """A role process that was started beside the servers; `url` is where a gateway answers, else None."""

    role: str
    pid: int
    started: str
    url: str | None = None

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return ProcessIdentity(self.pid, self.started).alive()


def write_stack(data_dir: DataDir, said: Mapping[str, object]) -> None:
    """Write what the owner of the servers says."""
    with _alone(data_dir):
        _write(data_dir, {**said, "roles": [asdict(one) for one in living_roles(_read(data_dir))]})


def join_roles(data_dir: DataDir, role: str, pid: int, url: str | None) -> None:
    """Add a process to the roles of a running stack; does nothing where none runs."""
    process = identify(pid)
    if not data_dir.stack_file.exists():
        return
    with _alone(data_dir):
        found = _read(data_dir)
        if process is None or not found:
            return
        roles = [*living_roles(found), JoinedRole(role, process.pid, process.started, url)]
        _write(data_dir, {**found, "roles": [asdict(one) for one in roles]})


def living_roles(found: Mapping[str, Json]) -> Roles:
    """Return the roles of a file that still run. Raises: KeyError where one is not described as we do."""
    listed = found.get("roles")
    roles = [_role(as_object(one)) for one in listed] if isinstance(listed, list) else []
    return [one for one in roles if one.alive()]


def _role(said: JsonObject) -> JoinedRole:
    url = said["url"]
    return JoinedRole(str(said["role"]), int(str(said["pid"])), str(said["started"]), None if url is None else str(url))


def _read(data_dir: DataDir) -> JsonObject:
    try:
        return load_object(data_dir.stack_file.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _write(data_dir: DataDir, said: Mapping[str, object]) -> None:
    write_atomically(data_dir.stack_file, json.dumps(said, indent=2) + "\n")


@contextmanager
def _alone(data_dir: DataDir) -> Generator[None]:
    with (data_dir.run / "stack.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
