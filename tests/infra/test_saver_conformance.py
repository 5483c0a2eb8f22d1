"""The saver keeps every promise that LangGraph's conformance suite asks for."""

from collections.abc import AsyncGenerator

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance.capabilities import Capability  # pyright: ignore[reportMissingTypeStubs] - untyped
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer  # pyright: ignore[reportMissingTypeStubs] - untyped
from langgraph.checkpoint.conformance.validate import validate  # pyright: ignore[reportMissingTypeStubs] - untyped
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.infra.memory_checkpoints import MemoryCheckpoints, MemoryThreads

from agentlog_infra.standalone_saver import StandaloneSaver


async def savers() -> "AsyncGenerator[BaseCheckpointSaver[str], None]":
    reads = MemoryCheckpoints()
    yield StandaloneSaver(reads, MemoryThreads(reads).commit, JsonPlusSerializer(), "token")


@pytest.mark.parametrize("capability", [capability.value for capability in Capability])
async def test_the_saver_conforms(capability: str) -> None:
    report = await validate(RegisteredCheckpointer("LogSaver", savers), capabilities={capability})
    result = report.results[capability]
    assert result.detected
    assert result.failures == []
    assert result.passed
    assert result.tests_passed > 0
    assert result.tests_skipped == 0
