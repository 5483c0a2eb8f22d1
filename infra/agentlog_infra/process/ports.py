"""Decides what is said when a TCP port is taken: which process holds it, where the system tells."""

import contextlib
import errno
import os
import socket
from pathlib import Path

from agentlog_facts.errors import Conflict
from agentlog_infra.process.child import command_line

_LISTENING = "0A"


class PortTaken(Conflict):
    """Another process listens on the port; the message names it where the system tells."""

    code = "port_taken"


def demand_free(host: str, port: int) -> None:
    """Check that a port can be listened on. Raises: PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise PortTaken(f"port {port} on {host} is taken{_by_whom(port)}") from error


def _by_whom(port: int) -> str:
    pid = owner_of(port)
    return "" if pid is None else f" by process {pid} ({' '.join(command_line(pid))[:80]})"


def owner_of(port: int) -> int | None:
    """Return the pid that listens on a TCP port, None where /proc does not tell (other systems, other users)."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not wanted:
        return None
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(_target(handle) in wanted for handle in (entry / "fd").iterdir()):
                return int(entry.name)
    return None


def _target(handle: Path) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(handle)
    return ""


def _listening_inodes(port: int) -> set[str]:
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == _LISTENING:
                    found.add(fields[9])
    return found
