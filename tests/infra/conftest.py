"""Decides which brokers the tests of topics and logins share, one of each kind a session."""

from collections.abc import Iterator

import pytest
from tests.apache_kafka.secured import SecuredKafka
from tests.broker.servers import BrokerProcess
from tests.certificates import Certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give an authority and what it signed."""
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[SecuredKafka]:
    """Run a node of Apache Kafka with a door for each kind of login."""
    server = SecuredKafka(tmp_path_factory.mktemp("secured_kafka"), certificates)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """Run an embedded broker."""
    process = BrokerProcess(tmp_path_factory.mktemp("broker"), "--die-with-parent").start()
    yield process
    process.stop()
