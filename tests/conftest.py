"""Selection of tests: --full adds the release numbers, --fast leaves out slow tests, and needed programs are checked.

A missing program skips the test with its reason. If CI is set, it fails the test, because CI has all programs.
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
    parser.addoption("--fast", action="store_true", default=False, help="run no slow test: under a minute")


def pytest_configure(config: pytest.Config) -> None:
    """Set up Hypothesis (no deadline, because machines are busy; more examples with --full) and the process guard."""
    examples = 1000 if config.getoption("--full") else 25 if config.getoption("--fast") else 100
    settings.register_profile(
        "agentlog", deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("agentlog")
    guard = ProcessGuard()
    config.pluginmanager.register(guard)
    sys.addaudithook(guard.audit)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # shells ignore it in background jobs, children inherit that
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Return whether --full was given."""
    return bool(pytestconfig.getoption("--full"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark slow tests; without --full skip the release numbers; with --fast leave out slow tests."""
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
    """Skip a test whose programs are missing, or fail it if CI is set."""
    needed = [program for marker in item.iter_markers("needs") for program in marker.args]
    missing = [program for program in needed if find(program) is None]
    if not missing:
        return
    reason = f"not on this machine: {', '.join(missing)}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must have it", pytrace=False)
    pytest.skip(reason)
