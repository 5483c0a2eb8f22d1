"""Network between processes and servers: each call takes a seeded time, may break, and may kill its caller.

A broken call may have been executed or not. Its caller cannot tell, because the error is the same.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from tests.simulation.loop import PROCESS, Process, SimLoop

T = TypeVar("T")
Fault = Callable[[str], Exception]


@dataclass
class Server:
    """A server that may be away; clients connected to an earlier `life` are cut off."""

    name: str
    up: bool = True
    life: int = 0


@dataclass(frozen=True)
class Weather:
    """Conditions of the network: usual and bad delay in seconds, and the rates of broken calls and bad delays."""

    usual_s: float = 0.004
    bad_s: float = 0.8
    bad: float = 0.0
    broken: float = 0.0
    doubled: float = 0.0
    lost: float = 0.0


CALM = Weather()


@dataclass
class Network:
    """Carries calls, and keeps the trace that distinguishes two runs of the simulation."""

    loop: SimLoop
    chance: Random
    weather: Weather = CALM
    cut_off: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    over: bool = False
    calls: int = 0
    keep_lines: bool = False
    lines: list[str] = field(default_factory=list[str])
    effects: Counter[str] = field(default_factory=Counter[str])
    """Faults that took effect."""

    def __post_init__(self) -> None:
        self._trace = hashlib.sha256()

    def note(self, *words: object) -> None:
        """Add a line to the trace."""
        line = f"{self.loop.time():.6f} {' '.join(map(str, words))}"
        self._trace.update(line.encode())
        if self.keep_lines:
            self.lines.append(line)

    def digest(self) -> str:
        """Return the digest of the trace so far."""
        return self._trace.hexdigest()

    def happens(self, likely: float) -> bool:
        """Draw whether an event with this probability occurs."""
        return likely > 0 and self.chance.random() < likely

    def delay_s(self) -> float:
        """Draw the delay of a message."""
        if self.happens(self.weather.bad):
            return self.weather.bad_s * self.chance.random()
        return self.weather.usual_s * self.chance.random()

    def cut(self, process: Process, server: Server) -> bool:
        """Return whether the link between a process and a server is cut, and count that as an effective fault."""
        there = (process.name, server.name) in self.cut_off
        self.effects[f"cut off from {server.name}"] += there
        return there

    async def call(self, server: Server, operation: Callable[[], T], fault: Fault) -> T:
        """Execute an operation at a server. Raises: the exception of `fault` or of the operation."""
        process = PROCESS.get()
        self.calls += 1
        self._count(process)
        if self.over:
            raise fault("the simulation is over")
        answer: asyncio.Future[T] = self.loop.create_future()
        life = server.life
        self.later(self.delay_s(), lambda: self._arrive(process, server, life, operation, fault, answer))
        return await answer

    def _count(self, process: Process) -> None:
        """Kill a process at its fatal call: the request has been sent."""
        if process.kill_in_calls:
            process.kill_in_calls -= 1
            if process.kill_in_calls == 0:
                self.note("dies at a call", process.name)
                self.effects["died at a call"] += 1
                self.loop.kill(process)

    def _arrive(
        self,
        process: Process,
        server: Server,
        life: int,
        operation: Callable[[], T],
        fault: Fault,
        answer: asyncio.Future[T],
    ) -> None:
        if not server.up or self.cut(process, server):
            self.later(self.delay_s(), lambda: _fail(answer, fault(f"{server.name} is away")))
            return
        if server.life != life or self.happens(self.weather.broken / 2):
            self.later(self.delay_s(), lambda: _fail(answer, fault(f"the connection to {server.name} broke")))
            return
        self._answer(server, operation, fault, answer)

    def _answer(self, server: Server, operation: Callable[[], T], fault: Fault, answer: asyncio.Future[T]) -> None:
        life = server.life
        try:
            result = operation()
        except Exception as error:  # noqa: BLE001 - carried to the caller, whatever it is
            failure = error
            self.later(self.delay_s(), lambda: _fail(answer, failure))
            return

        def deliver() -> None:
            if server.life != life or self.happens(self.weather.broken / 2):
                _fail(answer, fault(f"the connection to {server.name} broke"))
            elif not answer.done():
                answer.set_result(result)

        self.later(self.delay_s(), deliver)

    def later(self, delay_s: float, happening: Callable[[], object]) -> None:
        """Run a callback outside of all processes later."""
        self.loop.happen(delay_s, happening)


def _fail(answer: "asyncio.Future[T]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
