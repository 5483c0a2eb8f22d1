"""Tests of attempts that go on after a crash or a drain: nothing accepted is lost, and nothing counts twice."""

import asyncio
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.infra.langgraph.executor_env import THREAD, ExecutorEnv, order_id
from tests.infra.langgraph.graph_sources import MIXED, PAIR
from tests.infra.langgraph.memory_checkpoints import CutLog
from tests.infra.projects import loaded

from agentlog_facts.execution_port import RunOutcome
from agentlog_facts.ids import RunId
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_infra.langgraph.checkpoints import journal
from agentlog_infra.langgraph.loading.graphs import Graphs

GRAPHS: Mapping[str, Json] = {
    "pair": "./pair_project.py:pair",
    "mixed": "./mixed_project.py:mixed",
    "delta": "./mixed_project.py:delta",
    "without_copies": "./mixed_project.py:without_copies",
}

AROUND_THE_COMMIT = pytest.mark.parametrize("commits", [0, 1])
"""A run with durability `exit` is one commit: its worker dies before it, or before the answer of the log."""


@pytest.fixture
def graphs(tmp_path: Path) -> Iterator[Graphs]:
    with loaded(tmp_path, {"pair_project.py": PAIR, "mixed_project.py": MIXED}, GRAPHS) as found:
        yield found


@pytest.fixture
async def env(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> ExecutorEnv:
    """Return runs over a log that can be cut between any two facts of a running attempt."""
    monkeypatch.setattr(journal, "FACTS_A_COMMIT", 1)
    return ExecutorEnv(graphs, CutLog)


def pair_event(name: str) -> asyncio.Event:
    """Return an event of the parallel nodes: `works` tells that `ask` has its answer, `worked` lets it return."""
    event: asyncio.Event = vars(importlib.import_module("pair_project"))[name]
    return event


def asked(outcome: RunOutcome) -> list[Json]:
    """Return the values of all open interrupts."""
    found: list[Json] = []
    for several in outcome.interrupts.values():
        assert isinstance(several, list)
        found += [as_object(one)["value"] for one in several]
    return found


async def answers(env: ExecutorEnv, graph_id: str) -> JsonObject:
    """Return a command that answers every open interrupt."""
    state = await env.state(graph_id, THREAD)
    tasks = state["tasks"]
    assert isinstance(tasks, list)
    found: JsonObject = {}
    for task in tasks:
        interrupts = as_object(task)["interrupts"]
        assert isinstance(interrupts, list)
        found |= {str(as_object(one)["id"]): "approved" for one in interrupts}
    return {"resume": found}


def items(outcome: RunOutcome, channel: str = "items") -> list[Json]:
    assert outcome.values is not None
    found = outcome.values[channel]
    assert isinstance(found, list)
    return found


async def begun_by_two_questions(env: ExecutorEnv) -> JsonObject:
    """Run the parallel nodes until both wait, and return the answers to both."""
    first = await env.run("pair", input={"said": []})
    assert sorted(map(str, asked(first))) == ["and I?", "may I?"]
    return await answers(env, "pair")


async def test_an_answer_to_a_parallel_node_is_not_lost_with_its_worker(env: ExecutorEnv) -> None:
    command = await begun_by_two_questions(env)
    assert isinstance(env.log, CutLog)
    env.log.left = 2  # the worker dies while `ask` works; a step of the subgraph is on the log
    dying = asyncio.create_task(env.run("pair", run=2, command=command))
    await pair_event("works").wait()
    await asyncio.wait([dying])
    assert dying.exception() is not None
    env.log.left = None
    pair_event("worked").set()
    outcome = await env.run("pair", run=2, attempt=2, command=command)
    assert asked(outcome) == []
    assert sorted(map(str, items(outcome, "said"))) == ["ask: approved", "sub: approved"]


async def test_an_answer_to_a_parallel_node_is_not_lost_when_its_worker_drains(env: ExecutorEnv) -> None:
    command = await begun_by_two_questions(env)
    before = len(env.log.drafts)
    draining = asyncio.create_task(env.run("pair", run=2, command=command))
    async with asyncio.timeout(10):
        while not any(getattr(fact, "checkpoint_ns", "") for draft in env.log.drafts[before:] for fact in draft.facts):
            await asyncio.to_thread(lambda: None)
    env.stop.set()
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    env.stop.clear()
    pair_event("worked").set()
    outcome = await env.run("pair", run=2, attempt=2, command=command)
    assert asked(outcome) == []
    assert sorted(map(str, items(outcome, "said"))) == ["ask: approved", "sub: approved"]


@AROUND_THE_COMMIT
async def test_with_exit_a_crash_runs_the_whole_run_again_or_nothing(env: ExecutorEnv, commits: int) -> None:
    given: JsonObject = {"plan": {"sub": True, "sub_ask": True}, "items": ["in"]}
    outcome = await env.cut_off("mixed", commits, answers_last=False, input=given, durability="exit")
    assert (outcome.status, outcome.error) == ("success", None)
    assert (items(outcome), asked(outcome)) == (["in", "begin0"], [{"sub": 1}])
    assert len(env.log.drafts) == 1


async def test_with_exit_the_log_has_all_of_a_run_or_nothing(env: ExecutorEnv) -> None:
    await env.run("delta", input={"plan": {"sub": True, "sub_ask": True}, "items": ["in"]}, durability="exit")
    assert len(env.log.drafts) == 1


@AROUND_THE_COMMIT
async def test_with_exit_a_crash_on_an_older_thread_does_not_run_the_older_input(
    env: ExecutorEnv, commits: int
) -> None:
    await env.run("mixed", input={"plan": {"fan": 1, "fail": 0}, "items": ["old"]})
    given: JsonObject = {"plan": {"sub": True, "sub_ask": True}, "items": ["new"]}
    outcome = await env.cut_off("mixed", commits, run=2, answers_last=False, input=given, durability="exit")
    assert outcome.status == "success", outcome.error
    assert "new" in items(outcome)


async def test_breakpoints_after_all_nodes_do_not_stop_before_the_first_node(env: ExecutorEnv) -> None:
    given: JsonObject = {"plan": {}, "items": ["in"]}
    outcome = await env.cut_off("mixed", 3, input=given, interrupt_after="*")  # killed while the first node runs
    assert (outcome.next, items(outcome)) == (("join",), ["in", "begin0"])


async def test_breakpoints_before_all_nodes_do_not_stop_before_the_input_is_read(env: ExecutorEnv) -> None:
    given: JsonObject = {"plan": {}, "items": ["in"]}
    outcome = await env.cut_off("mixed", 1, input=given, interrupt_before="*")
    assert (outcome.next, items(outcome)) == (("begin",), ["in"])


async def test_a_breakpoint_after_a_node_of_an_earlier_run_does_not_stop_a_new_input(env: ExecutorEnv) -> None:
    await env.run("mixed", input={"plan": {"fan": 1, "work_ask": 0}, "items": ["in"]})  # waits at `work`
    given: JsonObject = {"plan": {}, "items": ["new"]}
    outcome = await env.cut_off("mixed", 1, run=2, input=given, interrupt_after=["work"])  # at the input's checkpoint
    assert outcome.next == ()
    assert "new" in items(outcome)


@pytest.mark.parametrize("commits", [1, 2, 3])
async def test_a_run_that_was_sent_to_a_node_stops_after_it(env: ExecutorEnv, commits: int) -> None:
    await env.run("mixed", input={"plan": {}, "items": ["in"]})
    command: JsonObject = {"goto": {"node": "work", "input": {"i": 0, "plan": {}}}}
    outcome = await env.cut_off("mixed", commits, run=2, answers_last=False, command=command, interrupt_after=["work"])
    assert outcome.next == ("join",)


@AROUND_THE_COMMIT
async def test_with_exit_and_delta_channels_no_success_has_lost_everything(env: ExecutorEnv, commits: int) -> None:
    given: JsonObject = {"plan": {}, "items": ["in"]}
    outcome = await env.cut_off("delta", commits, answers_last=False, input=given, durability="exit")
    assert items(outcome) == ["in", "begin0", "join"]


async def test_an_update_of_a_delta_channel_counts_once(env: ExecutorEnv) -> None:
    given: JsonObject = {"plan": {"fan": 1}, "items": ["in"]}
    await env.run("delta", input=given, interrupt_before=["begin"])
    command: JsonObject = {"update": {"items": ["only"]}}
    outcome = await env.cut_off("delta", 2, run=2, command=command, interrupt_before=["work"])
    assert items(outcome) == ["in", "only", "begin0"]
    state = await env.state("delta", THREAD)
    assert as_object(state["values"])["items"] == ["in", "only", "begin0"]


@pytest.mark.parametrize("graph_id", ["mixed", "delta", "without_copies"])
async def test_a_state_without_an_earlier_run_keeps_what_later_runs_built_on_it(
    env: ExecutorEnv, graph_id: str
) -> None:
    for run in (1, 2, 3):
        await env.run(graph_id, run=run, input={"plan": {}, "items": [f"in{run}"]})
    for run in (1, 2):
        view = await env.access.view_without_run(graph_id, THREAD, RunId(order_id(run)))
        assert view.values is not None
        expected: list[Json] = ["in1", "begin0", "join", "in2", "begin1", "join", "in3", "begin2", "join"]
        assert view.values["items"] == expected
    last = await env.access.view_without_run(graph_id, THREAD, RunId(order_id(3)))
    assert last.values is not None
    assert last.values["items"] == ["in1", "begin0", "join", "in2", "begin1", "join"]


@pytest.mark.parametrize("commits", [1, 2, 3, 4])
async def test_a_step_whose_routing_failed_is_not_taken_for_finished(env: ExecutorEnv, commits: int) -> None:
    given: JsonObject = {"plan": {"lost": True}, "items": ["in"]}
    outcome = await env.cut_off("mixed", commits, answers_last=False, input=given)
    assert outcome.error == {"error": "ValueError", "message": "no way"}
