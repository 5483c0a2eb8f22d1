"""Kafka servers for the tests: one of each kind per session, and some that a test may kill."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.apache_kafka.secured import SecuredKafka
from tests.broker.servers import BrokerProcess
from tests.certificates import Certificates
from tests.contracts.conftest import APACHE, Server, own_server_of


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return the certificates of the session."""
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[SecuredKafka]:
    """Yield a node of Apache Kafka with a port for each kind of login."""
    server = SecuredKafka(tmp_path_factory.mktemp("secured_kafka"), certificates)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """Yield an embedded broker."""
    process = BrokerProcess(tmp_path_factory.mktemp("broker"), "--die-with-parent").start()
    yield process
    process.stop()


@pytest.fixture(params=["agentlog_broker", APACHE])
def kafka(request: pytest.FixtureRequest) -> str:
    """Return the address of a server of each kind; each test uses topics of its own."""
    server = request.getfixturevalue("broker" if request.param == "agentlog_broker" else "secured_kafka")
    assert isinstance(server, BrokerProcess | SecuredKafka)
    return server.bootstrap


@pytest.fixture(params=["agentlog_broker", APACHE])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Yield a server of each kind that the test may kill."""
    with own_server_of(str(request.param), tmp_path / "data") as started:
        yield started
