"""One running server for all system tests that kill nothing."""

from collections.abc import Generator

import pytest
from tests.system.servers import RunningServer, running_server


@pytest.fixture(scope="session")
def server() -> Generator[RunningServer]:
    """Yield a whole server, as `agentlog dev` starts it."""
    with running_server() as running:
        yield running
