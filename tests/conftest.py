"""Which tests run: the release numbers with --full, the fast ones with --fast, none that lacks a program it needs.

A missing program skips the test with its reason; where CI is set it fails the test instead, because CI has everything.
"""

import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings
from tests.programs import find
from tests.slow_tests import ProcessGuard, is_slow

pytest_plugins = ["tests.stack_fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --full, which asks for the release numbers instead of the small ones, and --fast."""
    parser.addoption("--full", action="store_true", default=False, help="run the release numbers")
    parser.addoption("--fast", action="store_true", default=False, help="run no test that is slow: under a minute")


def pytest_configure(config: pytest.Config) -> None:
    """Judge no example by the clock of a busy machine; run more where the release numbers are, fewer with --fast."""
    examples = 1000 if config.getoption("--full") else 25 if config.getoption("--fast") else 100
    settings.register_profile(
        "agentlog", deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("agentlog")
    guard = ProcessGuard()
    config.pluginmanager.register(guard)
    sys.addaudithook(guard.heard)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background jobs so, and children inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Tell whether the release numbers were asked for."""
    return bool(pytestconfig.getoption("--full"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is slow; skip what only --full runs, and leave out with --fast what is slow."""
    for item in items:
        if is_slow(item):
            item.add_marker("slow")
        if item.get_closest_marker("full") and not config.getoption("--full"):
            item.add_marker(pytest.mark.skip(reason="a release number: runs with --full"))
    if config.getoption("--fast"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose programs are missing, or fail it where CI is set."""
    needed = [program for marker in item.iter_markers("needs") for program in marker.args]
    missing = [program for program in needed if find(program) is None]
    if not missing:
        return
    reason = f"not on this machine: {', '.join(missing)}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must have it", pytrace=False)
    pytest.skip(reason)
