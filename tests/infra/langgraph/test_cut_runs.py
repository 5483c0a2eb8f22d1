"""A run that is cut off after any fact, by a crash or a drain, ends as if nothing had happened."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.infra.langgraph.cut_runs import CutHistory, ended
from tests.infra.langgraph.executor_env import ExecutorEnv
from tests.infra.langgraph.graph_sources import MIXED
from tests.infra.langgraph.memory_checkpoints import CutLog
from tests.infra.projects import loaded

from agentlog_facts.json_value import JsonObject
from agentlog_infra.langgraph.checkpoints import journal
from agentlog_infra.langgraph.loading.graphs import Graphs

FEW, MANY = 150, 10_000
"""Cut runs in every test run, and for a release."""


@pytest.fixture
def graphs(tmp_path: Path) -> Iterator[Graphs]:
    names = {name: f"./mixed_project.py:{name}" for name in ("mixed", "delta")}
    with loaded(tmp_path, {"mixed_project.py": MIXED}, names) as found:
        yield found


@pytest.mark.timeout(3600)
async def test_a_run_that_is_cut_off_ends_as_if_nothing_had_happened(
    graphs: Graphs, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    monkeypatch.setattr(journal, "FACTS_A_COMMIT", 1)  # a cut between any two facts
    seed, cut_runs = 0, 0
    while cut_runs < (MANY if full else FEW):
        history = CutHistory(graphs, seed)
        await history.play()
        assert history.differences == [], str(history.differences[0])
        seed, cut_runs = seed + 1, cut_runs + history.cut_runs


async def test_a_drain_between_the_end_of_the_graph_and_its_mark_leaves_nothing(graphs: Graphs) -> None:
    """With durability `exit`, a checkpoint without the mark of its end was taken for a consent to go on."""
    kwargs: JsonObject = {"input": {"plan": {"sub": True}, "items": ["in"]}, "durability": "exit"}
    kwargs["interrupt_before"] = "*"
    env = ExecutorEnv(graphs, CutLog)
    expected = await env.attempt(env.order("mixed", 1, 1, kwargs))
    for turns in range(40):
        env = ExecutorEnv(graphs, CutLog)
        await ended(env, "mixed", 1, 1, kwargs, "drained at turn", turns)
        outcome = await env.attempt(env.order("mixed", 1, 2, kwargs))
        assert (turns, outcome.next, outcome.values) == (turns, expected.next, expected.values)
