"""A consumer that could not connect leaves nothing open."""

import gc
import warnings

import pytest
from tests.contracts.conftest import connection_to

from agentlog_facts.errors import Unavailable
from agentlog_infra.kafka_reader import KafkaReader


async def test_a_consumer_whose_start_failed_is_stopped() -> None:
    reader = KafkaReader(connection_to("127.0.0.1:1"), "nowhere", "test")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(Unavailable):
            await reader.end(0)
        gc.collect()
    assert [str(one.message) for one in caught if issubclass(one.category, ResourceWarning)] == []
