"""Client of the fork server: a child that has loaded the code of all roles and forks them on request."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

from agentlog_facts.errors import Unavailable
from agentlog_infra.process.child import child_environment, spawn, stop_child
from agentlog_infra.supervisor.forkserver_main import MESSAGE_BYTES, TITLE_ROOM

log = logging.getLogger(__name__)

_KILLED = -int(signal.SIGKILL)


class Fork:
    """A process that the fork server forked. It is not our child, so the fork server reports its end."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        """Wait for its end; return its exit status, negative for a signal."""
        await self._ended.wait()
        return _KILLED if self.returncode is None else self.returncode

    def end(self, status: int) -> None:
        """Record its exit status and wake its waiters."""
        self.returncode = status
        self._ended.set()


class ForkServer:
    """The child that forks roles. When it dies its forks die with it, and the next `fork` starts another one."""

    def __init__(self, preloads: Sequence[str]) -> None:
        self._preloads = ",".join(dict.fromkeys(preloads)) or "-"
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._orders: dict[int, asyncio.Future[Fork]] = {}
        self._forks: dict[int, Fork] = {}
        self._next_id = 0
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start the child; it loads code for a second or two and accepts orders meanwhile."""
        async with self._starting:
            if self._control is not None:
                return
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                words = [str(theirs.fileno()), self._preloads, TITLE_ROOM]
                self._process = await spawn(
                    [sys.executable, "-m", "agentlog_infra.supervisor.forkserver_main", *words],
                    death_signal=signal.SIGKILL,
                    env=child_environment(),
                    stdout=sys.__stderr__.fileno() if sys.__stderr__ else None,
                    pass_fds=(theirs.fileno(),),
                )
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
            ours.setblocking(False)
            self._control = ours
            asyncio.get_running_loop().add_reader(ours.fileno(), self._read)

    async def fork(self, module: str, arguments: Sequence[str], variables: Mapping[str, str], ready_fd: int) -> Fork:
        """Fork a process that runs `python -m MODULE ARGUMENT... --ready-fd N` with these variables.

        Raises: Unavailable if the code cannot be loaded; the reason is on stderr.
        """
        await self.start()
        assert self._control is not None
        self._next_id += 1
        answer: asyncio.Future[Fork] = asyncio.get_running_loop().create_future()
        self._orders[self._next_id] = answer
        order = {"id": self._next_id, "module": module, "arguments": list(arguments), "variables": dict(variables)}
        try:
            socket.send_fds(self._control, [json.dumps(order).encode()], [ready_fd])
        except OSError:
            self._lost()  # it died just now: fail all waiting orders
        return await answer

    async def stop(self) -> None:
        """Kill the child and, with it, every fork that still runs."""
        if self._process is not None:
            await stop_child(self._process, ())
        self._lost()

    def _read(self) -> None:
        while self._control is not None:
            try:
                message = self._control.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._lost()
                return
            self._receive(json.loads(message))

    def _receive(self, message: dict[str, int]) -> None:
        if "id" in message:
            fork = self._forks[message["pid"]] = Fork(message["pid"])
            answer = self._orders.pop(message["id"])
            if answer.cancelled():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(fork.pid, signal.SIGKILL)  # its caller has given up
            else:
                answer.set_result(fork)
        elif (ended := self._forks.pop(message["pid"], None)) is not None:
            ended.end(message["status"])

    def _lost(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        for answer in self._orders.values():
            if not answer.done():
                answer.set_exception(
                    Unavailable("the code of the roles could not be loaded; the reason is printed above")
                )
        self._orders.clear()
        for fork in self._forks.values():
            fork.end(_KILLED)
        self._forks.clear()
