"""Child processes: started so that none outlives its parent, recognised after a restart, and stopped."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Protocol

from agentlog_infra import timeouts

# Runs in the child before the program: changes the user, asks the kernel for a signal at the parent's death (the change
# of user would clear it, so it comes second), and gives up if the parent died before the kernel knew.
# A start hook inside fork() would do the same, but is unsafe with threads and warns from Python 3.12 on.
_TRAMPOLINE = """\
import ctypes, os, sys
parent, death, uid, gid = map(int, sys.argv[1:5])
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, death, 0, 0, 0)
if os.getppid() != parent:
    os._exit(1)
os.execv(sys.argv[5], sys.argv[5:])
"""
_ROOMS = (
    "agentlog_facts",
    "agentlog_commands",
    "agentlog_projections",
    "agentlog_processors",
    "agentlog_gateway",
    "agentlog_infra",
    "agentlog_postgres",
    "agentlog_broker",
)


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged system account that a server runs under when agentlog itself runs as root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one with the same pid: the start time is part of it."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Return whether exactly this process still runs; a zombie does not."""
        return started_at(self.pid) == self.started


def started_at(pid: int) -> str | None:
    """Return an opaque start time of a running process, None if there is none or only its zombie.

    `psutil.Process.create_time` would not do: on Linux it moves when the system's clock is set.
    """
    if sys.platform != "linux":
        return _started_by_ps(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _started_by_ps(pid: int) -> str | None:
    done = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = done.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of a running process, None if it does not run."""
    started = started_at(pid)
    return None if started is None else ProcessIdentity(pid, started)


def command_line(pid: int) -> list[str]:
    """Return the arguments of a process, none if it does not run or may not be read.

    Empty arguments are left out: a process that renames itself pads its new name with them.
    """
    import psutil  # imported here: it is slow to load, and most starts do not need it

    try:
        return [argument for argument in psutil.Process(pid).cmdline() if argument]
    except psutil.Error:
        return []


def folder_identity(folder: Path) -> str:
    """Return the identity of a folder: device and inode. A copy of the folder has another one; a renamed one keeps it.

    Raises: OSError.
    """
    found = folder.stat()
    return f"{found.st_dev}:{found.st_ino}"


def remember(path: Path, identity: ProcessIdentity, **more: str) -> None:
    """Write the identity of a child to a note, so that the next start finds it if it becomes an orphan."""
    found = {"pid": identity.pid, "started": identity.started, "home": folder_identity(path.parent), **more}
    write_atomically(path, json.dumps(found))


def recall(path: Path) -> ProcessIdentity | None:
    """Read the identity that `remember` wrote; None if the note is missing, damaged, or not of this folder.

    A copied note names a process of the folder that it was copied from, which is not ours.
    """
    try:
        found = json.loads(path.read_text())
        identity = ProcessIdentity(int(found["pid"]), str(found["started"]))
        return identity if found["home"] == folder_identity(path.parent) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file, readable by us alone, so that a reader sees the old text or the new one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    aside.replace(path)


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel (Linux) to signal this process when the one that started it dies; exit now if it already has."""
    if sys.platform == "linux":
        import ctypes

        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def child_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which a child Python finds the rooms of agentlog where this process finds them."""
    env = dict(os.environ if base is None else base)
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    roots = {str(Path(spec.origin).parent.parent) for name in _ROOMS if (spec := find_spec(name)) and spec.origin}
    known = [str(Path(entry).absolute()) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    wanted = [*known, *sorted(roots - installed - set(known))]
    return env | ({"PYTHONPATH": os.pathsep.join(wanted)} if wanted else {})


async def spawn(
    argv: Sequence[str | Path],
    *,
    death_signal: signal.Signals,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    stdout: IO[bytes] | int | None = None,
    stderr: IO[bytes] | int | None = None,
    pass_fds: Sequence[int] = (),
    umask: int = -1,
) -> asyncio.subprocess.Process:
    """Start a child in a session of its own that gets `death_signal` when this process dies, however it dies.

    The signal comes when the calling *thread* ends: call it on the thread that lives as long as the process.
    """
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    head = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(os.getpid()), str(int(death_signal)), str(uid), str(gid)]
    return await asyncio.create_subprocess_exec(
        *head,
        *(str(word) for word in argv),
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        umask=umask,
        start_new_session=True,
    )


async def stop_orphan(identity: ProcessIdentity, steps: Sequence[tuple[signal.Signals, float]]) -> bool:
    """Stop a process that is not our child: send each signal in turn and wait its seconds; return whether it ended."""
    for number, seconds in steps:
        if not identity.alive():
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, number)
        if await gone(identity, seconds):
            return True
    return not identity.alive()


async def gone(identity: ProcessIdentity, seconds: float) -> bool:
    """Wait until a process, ours or not, has ended; False after the given seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while identity.alive():
        left = deadline - loop.time()
        if left <= 0:
            return False
        await asyncio.to_thread(_wait_for_exit, identity.pid, min(left, 1.0))
    return True


def _wait_for_exit(pid: int, seconds: float) -> None:
    """Block until the kernel reports the end (Linux), else for one short step."""
    if sys.platform != "linux":
        select.select([], [], [], min(seconds, timeouts.CHILD_POLL_S))
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([handle], [], [], seconds)
    finally:
        os.close(handle)


class Running(Protocol):
    """A process whose end can be waited for: a child of ours, or one that a child of ours forked."""

    @property
    def pid(self) -> int:
        """Return its process id."""
        ...

    @property
    def returncode(self) -> int | None:
        """Return its exit status, None while it runs."""
        ...

    async def wait(self) -> int:
        """Wait for its end and return its exit status."""
        ...


async def stop_child(process: Running, steps: Sequence[tuple[signal.Signals, float]]) -> int:
    """Stop our own child: send each signal in turn and wait its seconds, at last SIGKILL; return its exit status."""
    for number, seconds in steps:
        if process.returncode is not None:
            return process.returncode
        signal_child(process, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await process.wait()
    signal_child(process, signal.SIGKILL)
    return await process.wait()


def signal_child(process: Running, number: signal.Signals) -> None:
    """Signal our own child unless it has ended. `Process.send_signal` would reap it and lose its exit status (3.11)."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
