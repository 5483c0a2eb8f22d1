"""Tests of the GIL watchdog: a process whose GIL is held by C code ends and prints its stacks."""

import subprocess
import sys

import pytest

from agentlog_infra.process.child import child_environment

pytestmark = pytest.mark.slow

HELD = """
import asyncio, ctypes
from datetime import timedelta
from agentlog_processors.runtime.gil_watchdog import GilWatchdog

async def main():
    stop = asyncio.Event()
    watching = asyncio.create_task(GilWatchdog(timedelta(seconds=1)).run(stop))
    await asyncio.sleep({quiet_s})
    if {held}:
        ctypes.PyDLL(None).sleep(60)
    stop.set()
    await watching

asyncio.run(main())
"""


def run(**values: object) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-c", HELD.format(**values)]
    return subprocess.run(words, capture_output=True, text=True, timeout=30, env=child_environment(), check=False)


def test_a_process_that_c_code_holds_ends_and_says_where() -> None:
    done = run(quiet_s=0.1, held=True)
    assert done.returncode == 1
    assert "in main" in done.stderr


def test_a_process_that_gives_signs_of_life_goes_on() -> None:
    done = run(quiet_s=2, held=False)
    assert (done.returncode, done.stderr) == (0, "")
