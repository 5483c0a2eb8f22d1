"""Tests of the reader: a consumer that cannot connect leaves nothing open."""

import gc
import warnings

import pytest
from tests.contracts.conftest import connection_to

from agentlog_facts.errors import Unavailable
from agentlog_infra.kafka.connection import kafka_faults
from agentlog_infra.kafka.reader import KafkaReader


async def test_a_consumer_whose_start_failed_is_stopped() -> None:
    reader = KafkaReader(connection_to("127.0.0.1:1"), "nowhere", "test")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(Unavailable):
            await reader.end(0)
        gc.collect()
    assert [str(one.message) for one in caught if issubclass(one.category, ResourceWarning)] == []


def test_a_connection_that_uvloop_has_closed_meanwhile_is_a_log_that_does_not_answer() -> None:
    with pytest.raises(Unavailable, match="connection to the log was lost"), kafka_faults("agentlog.events"):
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
    with pytest.raises(RuntimeError, match="something else"), kafka_faults("agentlog.events"):
        raise RuntimeError("something else")
