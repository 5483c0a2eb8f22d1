"""A graph whose node does the deed that its input names: deep, huge, cyclic, exiting, cancelling, blocking and so on.

Input: `deed`, one of DEEDS, and `seed`, which varies it. None of them may harm anything but the run itself.
"""

import asyncio
import ctypes
import gc
import logging
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, NotRequired, TypedDict

from langgraph.config import get_store, get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt


class Hostile(TypedDict):
    """State: what to do, and what a deed puts into it."""

    deed: str
    seed: int
    value: NotRequired[Any]


Deed = Callable[[random.Random], Awaitable[object]]
DEEDS: dict[str, Deed] = {}
KILLERS = frozenset({"exits", "aborts", "segfaults", "kills_itself", "terminates_itself", "closes_all_files"})
"""Deeds that end their process, or break it."""


def deed(function: Deed) -> Deed:
    """Register a deed under the name of its function."""
    DEEDS[function.__name__] = function
    return function


class Unspeakable(Exception):
    """An error whose text cannot be made."""

    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")


class Foreign(BaseException):
    """An error that is no Exception."""


def nested(depth: int, of: str) -> Any:
    """Return a value with `depth` levels."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if of == "list" else {"a": value} if of == "dict" else ([value],)
    return value


def odd_value(chance: random.Random) -> Any:
    """Return a value that is hard to store."""
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    makers: list[Callable[[], Any]] = [
        lambda: nested(chance.choice([60, 115, 119, 120, 121, 125, 150]), "list"),
        lambda: nested(chance.choice([190, 194, 196, 198, 199, 200, 201, 250]), chance.choice(["list", "dict"])),
        lambda: nested(chance.choice([500, 900, 5_000]), chance.choice(["list", "dict", "tuple"])),
        lambda: [nested(chance.choice([118, 150, 199]), "dict"), "x" * chance.choice([950_000, 1_500_000])],
        lambda: cyclic,
        lambda: {"me": cyclic},
        lambda: object(),
        lambda: (number for number in range(3)),
        lambda: threading.Lock(),
        lambda: odd_value,
        lambda: sys,
        lambda: socket.AF_INET,
        lambda: float("nan"),
        lambda: [float("inf"), -float("inf"), -0.0],
        lambda: 10 ** chance.choice([18, 19, 39, 400, 4_400]),
        lambda: b"\x00\xff" * chance.choice([1, 1_000, 500_000]),
        lambda: "a\x00b",
        lambda: "\ud800 alone",
        lambda: {1: "int", None: "none", ("t",): "tuple", b"b": "bytes"},
        lambda: {"\x00": 1, "\ud800": 2, "": 3},
        lambda: {"__type__": "bytes", "lc": 2, "type": "constructor", "id": ["os", "system"], "kwargs": {}},
        lambda: set(range(5)),
        lambda: frozenset({("a", 1)}),
        lambda: complex(1, 2),
        lambda: {str(number): number for number in range(chance.choice([1_000, 30_000]))},
        lambda: "x" * chance.choice([1_000_000, 6_000_000]),
        lambda: [ValueError("an error as a value"), Unspeakable()],
        lambda: memoryview(b"abc"),
        lambda: range(10),
        lambda: Ellipsis,
        lambda: NotImplemented,
        lambda: type("Local", (), {"x": 1})(),
    ]
    return chance.choice(makers)()


@deed
async def returns_an_odd_value(chance: random.Random) -> object:
    return {"value": odd_value(chance)}


@deed
async def returns_no_update(chance: random.Random) -> object:
    return chance.choice([5, "text", ["list"], {"unknown_key": 1}, object(), {1: 2}, {"value\x00": 1}])


@deed
async def interrupts_oddly(chance: random.Random) -> object:
    return {"value": interrupt(odd_value(chance))}


@deed
async def streams_oddly(chance: random.Random) -> object:
    for _ in range(chance.choice([1, 20])):
        get_stream_writer()(odd_value(chance))
    return {"value": 1}


@deed
async def puts_oddly(chance: random.Random) -> object:
    namespace = chance.choice([("a",), ("a\x00",), ("\ud800",), (), ("x" * 5_000,), ("a", "b.c")])
    key = chance.choice(["k", "", "k\x00", "\ud800", "k" * 100_000])
    await get_store().aput(namespace, key, {"value": odd_value(chance)})
    return {"value": 1}


@deed
async def goes_nowhere(chance: random.Random) -> object:
    return Command(goto=chance.choice(["nowhere", "a\x00b", "", "\ud800", "__end__", "__start__", "x" * 100_000]))


@deed
async def sends_oddly(chance: random.Random) -> object:
    target = chance.choice(["nowhere", "act", "a\x00b"])
    targets: list[Send | str] = [Send(target, {"deed": "returns_an_odd_value", "seed": n}) for n in range(3)]
    return Command(goto=targets)


@deed
async def raises_oddly(chance: random.Random) -> object:
    errors: list[BaseException] = [
        ValueError("x" * 3_000_000),
        ValueError("a\x00b \ud800"),
        Unspeakable(),
        Foreign("foreign"),
        SystemExit(3),
        SystemExit("text"),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(5),
        StopAsyncIteration(),
        asyncio.CancelledError("mine"),
        TimeoutError(),
        RecursionError("deep"),
        MemoryError(),
        BrokenPipeError(),
        ExceptionGroup("group", [ValueError("one"), ExceptionGroup("two", [Unspeakable()])]),
        BaseExceptionGroup("base", [SystemExit(1), KeyboardInterrupt()]),
        NotImplementedError(),
    ]
    raise chance.choice(errors)


@deed
async def recurses(chance: random.Random) -> object:
    def again(depth: int) -> int:
        return again(depth + 1) + 1

    return {"value": again(0)}


@deed
async def cancels(chance: random.Random) -> object:
    how = chance.choice(["tasks", "itself", "task_group", "stop", "close"])
    loop = asyncio.get_running_loop()
    if how == "tasks":
        for task in asyncio.all_tasks():
            task.cancel()
    elif how == "itself":
        mine = asyncio.current_task()
        assert mine is not None
        mine.cancel()
    elif how == "task_group":
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait()).cancel()
            raise asyncio.CancelledError
    elif how == "stop":
        loop.stop()
    else:
        loop.close()
    await asyncio.sleep(0)
    return {"value": how}


@deed
async def blocks(chance: random.Random) -> object:
    how = chance.choice(["sleep", "loop", "thread"])
    if how == "sleep":
        threading.Event().wait(chance.uniform(0.1, 1.5))
    elif how == "loop":
        sum(number * number for number in range(chance.choice([10**5, 10**6, 10**7])))
    else:
        await asyncio.to_thread(threading.Event().wait, chance.uniform(0.1, 1.5))
    return {"value": how}


@deed
async def forks(chance: random.Random) -> object:
    child = os.fork()
    if child == 0:
        if chance.random() < 0.5:
            os._exit(0)
        sys.exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    return {"value": child}


@deed
async def leaks(chance: random.Random) -> object:
    how = chance.choice(["memory", "files", "threads", "tasks"])
    if how == "memory":
        keep = bytearray(chance.choice([10, 200]) * 2**20)
        return {"value": len(keep)}
    if how == "files":
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(200)]
        for file in files:
            os.close(file)
    elif how == "threads":
        for _ in range(20):
            threading.Thread(target=threading.Event().wait, args=(1.0,)).start()
    else:
        for _ in range(100):
            asyncio.get_running_loop().create_task(asyncio.Event().wait())
    return {"value": how}


@deed
async def changes_its_process(chance: random.Random) -> object:
    changes: list[Callable[[], object]] = [
        lambda: os.chdir("/"),
        lambda: os.environ.clear(),
        lambda: gc.disable(),
        lambda: logging.disable(logging.CRITICAL),
        lambda: logging.basicConfig(force=True),
        lambda: sys.stdout.close(),
        lambda: sys.stderr.close(),
        lambda: asyncio.set_event_loop(None),
        lambda: os.umask(0o777),
        lambda: signal.set_wakeup_fd(-1),
        lambda: sys.setswitchinterval(0.5),
        lambda: random.seed(1),
        lambda: os.nice(1),
    ]
    return {"value": str(chance.choice(changes)())}


@deed
async def exits(chance: random.Random) -> object:
    os._exit(chance.choice([0, 1, 3, 137]))


@deed
async def aborts(chance: random.Random) -> object:
    os.abort()


@deed
async def segfaults(chance: random.Random) -> object:
    ctypes.string_at(0)
    return {"value": 1}


@deed
async def kills_itself(chance: random.Random) -> object:
    os.kill(os.getpid(), signal.SIGKILL)
    return {"value": 1}


@deed
async def terminates_itself(chance: random.Random) -> object:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0)
    return {"value": 1}


@deed
async def closes_all_files(chance: random.Random) -> object:
    os.closerange(3, 512)
    await asyncio.sleep(0.05)
    return {"value": 1}


async def act(state: Hostile) -> Any:
    """Do the deed."""
    return await DEEDS[state["deed"]](random.Random(state["seed"]))


graph = StateGraph(Hostile).add_node("act", act).add_edge(START, "act").add_edge("act", END).compile()
