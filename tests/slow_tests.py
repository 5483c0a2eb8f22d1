"""Rule that tells slow tests from fast ones, and a guard that fails a fast test which starts a process.

A test is slow if it uses a server or a program, lies in a folder of slow tests, or is marked `slow` because it starts a
process itself. The guard works in every run, so that a forgotten mark shows at once.
"""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVERS = frozenset(
    {"stack", "server", "broker", "start_broker", "kafka", "apache_kafka", "secured_kafka", "own_server"}
)
"""Fixtures that start a server."""
KINDS = frozenset({"agentlog_broker", "apache_kafka", "postgres"})
"""Names of servers as parameters of a test, whose fixtures start them on request."""
SLOW_FOLDERS = ("tests/simulation", "tests/system")
FAST_FOLDERS = ("tests/system/checker",)
STARTS = frozenset({"subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty"})
HARMLESS = frozenset({"git"})
"""Programs that a fast test may start: they end within milliseconds."""


def is_slow(item: pytest.Item) -> bool:
    """Return whether a test is slow by rule or by its mark."""
    folder = item.path.parent.relative_to(ROOT).as_posix()
    if folder.startswith(SLOW_FOLDERS) and not folder.startswith(FAST_FOLDERS):
        return True
    fixtures: set[str] = set(item.fixturenames) if isinstance(item, pytest.Function) else set()
    values = item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    kinds = {value for value in values if isinstance(value, str)}
    needed = {str(program) for marker in item.iter_markers("needs") for program in marker.args} - HARMLESS
    return bool(item.get_closest_marker("slow") or needed or fixtures & SERVERS or kinds & KINDS)


class ProcessGuard:
    """Plugin of pytest that listens for processes which the running test starts."""

    def __init__(self) -> None:
        self._fast: str | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Remember the running test if it is a fast one."""
        self._fast = None if item.get_closest_marker("slow") else item.nodeid
        try:
            return (yield)
        finally:
            self._fast = None

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        """Fail a fast test that starts a process; a hook for `sys.addaudithook`."""
        if self._fast is None or event not in STARTS:
            return
        program = os.path.basename(str(arguments[0])) if arguments else event
        if program not in HARMLESS:
            pytest.fail(f"{self._fast} starts {program} and is not marked: pytest.mark.slow", pytrace=False)
