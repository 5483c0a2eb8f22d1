"""Fixtures: the Kafka-protocol servers for the behaviour tests, and new brokers for tests that break one.

Behaviour tests take `kafka`, a bootstrap address. To run them against another server, add its starter to `SERVERS`; the
starter gets an empty directory and yields the address.
"""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from tests.apache_kafka.server import ApacheKafka
from tests.broker.servers import BrokerProcess


def _agentlog_broker(data_dir: Path) -> Generator[str]:
    broker = BrokerProcess(data_dir).start()
    yield broker.bootstrap
    assert broker.stop() == 0


def _apache_kafka(data_dir: Path) -> Generator[str]:
    server = ApacheKafka(data_dir, group_min_session_timeout_ms="500").start()
    yield server.bootstrap
    server.stop()


SERVERS: dict[str, Callable[[Path], Generator[str]]] = {
    "agentlog_broker": _agentlog_broker,
    "apache_kafka": _apache_kafka,
}
NEEDED = {"apache_kafka": pytest.mark.needs("java", "mvn")}
PARAMS = [pytest.param(name, marks=NEEDED.get(name, ())) for name in SERVERS]


@pytest.fixture(scope="session", params=PARAMS)
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Yield the address of a running server, shared by all behaviour tests."""
    yield from SERVERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[Callable[..., BrokerProcess]]:
    """Yield a function that starts a broker for this test only, which is killed afterwards."""
    started: list[BrokerProcess] = []

    def start(*options: str, directory: str = "data") -> BrokerProcess:
        broker = BrokerProcess(tmp_path / directory, *options).start()
        started.append(broker)
        return broker

    yield start
    for broker in started:
        broker.kill()
