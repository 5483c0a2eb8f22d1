"""A run that is cut off after any fact, by a crash or a drain, ends as if nothing had happened."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.infra.langgraph.cut_runs import CutHistory
from tests.infra.langgraph.graph_sources import MIXED
from tests.infra.projects import loaded

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
