"""The fork server: a process that has loaded the code of all roles once and forks role processes.

`python -m agentlog_infra.supervisor.forkserver_main CONTROL_FD PRELOADS`. Importing LangGraph takes a second of CPU
time; here it is spent once for all roles, while the servers start. PRELOADS are modules joined by commas, or "-".

On CONTROL_FD (a unix socket that preserves message boundaries) the supervisor sends {id, module, arguments, variables}
with the write end of a ready pipe. It receives {id, pid} and, when the process ends, {pid, status}. User code is loaded
after the fork.
"""

import ctypes
import json
import os
import runpy
import select
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import TypedDict

MESSAGE_BYTES = 256 * 1024
TITLE_ROOM = "x" * 200
"""A filler argument, so that the title of a role fits into the memory of the command line."""


class Order(TypedDict):
    """A request of the supervisor."""

    id: int
    module: str
    arguments: list[str]
    variables: dict[str, str]


def main() -> None:
    """Import the preloads, then fork on demand until the supervisor exits."""
    control = socket.socket(fileno=int(sys.argv[1]))
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for name in sys.argv[2].split(","):
        if name != "-":
            import_module(name)
    while True:
        readable, _, _ = select.select([control.fileno(), wake_read], [], [])
        if wake_read in readable:
            os.read(wake_read, 4096)
            _report_ended(control)
        if control.fileno() in readable:
            message, handles, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 1)
            if not message:
                return
            _fork(control, json.loads(message), handles[0])


def _report_ended(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        control.send(json.dumps({"pid": pid, "status": os.waitstatus_to_exitcode(status)}).encode())


def _fork(control: socket.socket, order: Order, ready_fd: int) -> None:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        _become(parent, order, ready_fd)
    os.close(ready_fd)
    control.send(json.dumps({"id": order["id"], "pid": pid}).encode())


def _become(parent: int, order: Order, ready_fd: int) -> None:
    """Run a module like a program started by itself; never returns."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    _die_with(parent)
    os.environ.update(order["variables"])
    sys.argv = [order["module"], *order["arguments"], "--ready-fd", str(ready_fd)]
    _show_as([sys.executable, "-m", *sys.argv])
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
    sys.exit(0)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _show_as(words: list[str]) -> None:
    """Overwrite our own command line, which /proc shows to people and tools (Linux), with that of the role."""
    if sys.platform != "linux":
        return
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    title = "\0".join(words).encode()[: end - start - 1]
    ctypes.memmove(start, title.ljust(end - start, b"\0"), end - start)


if __name__ == "__main__":
    main()
