"""Check that a TCP port is free; the error names the process that listens on it, if the system shows it."""

import errno
import socket

from agentlog_facts.errors import Conflict, Misconfigured
from agentlog_infra.process.child import command_line


class PortTaken(Conflict):
    """Another process listens on the port; the message names it if the system shows it."""

    code = "port_taken"


def demand_free(host: str, port: int) -> None:
    """Check that a port can be listened on. Raises: PortTaken, Misconfigured for a host that is not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                reason = f"cannot listen on {host}:{port}: {error.strerror or error}"
                raise Misconfigured(
                    f"AGENTLOG_HOST, AGENTLOG_PORT: {reason}; use an address of this machine"
                ) from error
            raise PortTaken(f"port {port} on {host} is taken{_owner(port)}") from error


def _owner(port: int) -> str:
    pid = owner_of(port)
    return "" if pid is None else f" by process {pid} ({' '.join(command_line(pid))[:80]})"


def owner_of(port: int) -> int | None:
    """Return the pid that listens on a TCP port, None if the system does not show it (processes of other users)."""
    import psutil  # imported here: it is slow to load, and needed only if a port is taken

    try:
        found = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    pids = (one.pid for one in found if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port)
    return next((pid for pid in pids if pid is not None), None)
