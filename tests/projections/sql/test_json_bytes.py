"""Tests of the weight of JSON in memory, and of the rows that caches hold."""

import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agentlog_facts.json_value import Json, JsonObject
from agentlog_projections.models import runs, threads
from agentlog_projections.models.run_fold import RunRow
from agentlog_projections.models.thread_fold import ThreadRow
from agentlog_projections.sql.json_bytes import json_bytes


def size_of(value: Json) -> int:
    """Return what CPython says of a value and all inside it."""
    inside: list[Json] = []
    if isinstance(value, dict):
        inside = [*value, *value.values()]
    elif isinstance(value, list):
        inside = value
    return sys.getsizeof(value) + sum(map(size_of, inside))


@pytest.mark.parametrize(
    "value",
    [
        {f"key-{number}": f"value {number}" for number in range(10_000)},
        [f"item {number}" for number in range(10_000)],
        {"text": "x" * 1_000_000},
        {"nested": [{"a": [str(number)]} for number in range(1_000)]},
    ],
)
def test_the_weight_of_json_is_about_its_size_in_memory(value: Json) -> None:
    assert 0.6 < json_bytes(value) / size_of(value) < 1.7


NOW = datetime(2026, 1, 1, tzinfo=UTC)
LARGE: JsonObject = {"key": ["x" * 1000 for _ in range(100)]}
THREAD = ThreadRow("t", 0, NOW, NOW, NOW, {}, temporary=False)
RUN = RunRow("r", "t", "g", 0, None, NOW, NOW)


@pytest.mark.parametrize(
    "row",
    [
        replace(THREAD, values="x" * 100_000),
        replace(THREAD, metadata=LARGE),
        replace(THREAD, config=LARGE),
        replace(THREAD, interrupts=LARGE),
        replace(THREAD, error=LARGE),
    ],
)
def test_every_part_of_a_cached_thread_that_can_be_large_counts(row: ThreadRow) -> None:
    assert threads.row_bytes(row) > 100_000


@pytest.mark.parametrize("row", [replace(RUN, cancel=LARGE), replace(RUN, error=LARGE), replace(RUN, interrupts=LARGE)])
def test_every_part_of_a_cached_run_that_can_be_large_counts(row: RunRow) -> None:
    assert runs.row_bytes(row) > 100_000
