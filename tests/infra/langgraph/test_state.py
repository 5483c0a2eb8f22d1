"""Tests of states, histories and state updates of threads in the shape of the API."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.infra.langgraph.executor_env import THREAD, ExecutorEnv
from tests.infra.langgraph.test_executor import NAMES, SOURCE, question
from tests.infra.projects import loaded

from agentlog_facts.checkpoint import CheckpointSaved
from agentlog_facts.graph_ports import At, BadUpdate, GraphFailed, GraphNotFound, StateChange
from agentlog_facts.ids import RunId, ThreadId, stream
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_facts.secret_values import MASK, SecretKeys
from agentlog_facts.state_diff import apply_diff
from agentlog_infra.langgraph.checkpoints.channel_state import ChannelState
from agentlog_infra.langgraph.loading.graphs import Graphs
from agentlog_infra.langgraph.state import LangGraphAccess, StateDependencies
from agentlog_infra.system_ports import SystemIds

FIRST, SECOND = RunId("00000000-0000-7000-8000-000000000001"), RunId("00000000-0000-7000-8000-000000000002")


@pytest.fixture
def graphs(tmp_path: Path) -> Iterator[Graphs]:
    graphs = {name: f"./state_project.py:{name}" for name in NAMES}
    with loaded(tmp_path, {"state_project.py": SOURCE}, graphs) as found:
        yield found


@pytest.fixture
async def env(graphs: Graphs) -> ExecutorEnv:
    return ExecutorEnv(graphs)


def commit(env: ExecutorEnv, change: StateChange) -> None:
    env.reads.fold(stream("thread", THREAD), (*change.facts, change.updated))


def items(value: Json) -> list[JsonObject]:
    assert isinstance(value, list)
    return [as_object(item) for item in value]


async def test_a_thread_without_state_shows_an_empty_snapshot(env: ExecutorEnv) -> None:
    assert await env.state("steps", THREAD) == {
        "values": {},
        "next": [],
        "tasks": [],
        "metadata": None,
        "created_at": None,
        "checkpoint": None,
        "parent_checkpoint": None,
        "interrupts": [],
        "checkpoint_id": None,
        "parent_checkpoint_id": None,
    }


async def test_an_unknown_checkpoint_is_echoed(env: ExecutorEnv) -> None:
    found = await env.state("steps", THREAD, At("nowhere"))
    assert (found["values"], found["checkpoint_id"]) == ({}, "nowhere")
    assert found["checkpoint"] == {"checkpoint_id": "nowhere", "thread_id": THREAD}


async def test_a_finished_thread_shows_its_state(env: ExecutorEnv) -> None:
    outcome = await env.run("steps", input={"said": ["x"]})
    found = await env.state("steps", THREAD)
    assert (found["values"], found["next"], found["interrupts"]) == ({"said": ["x", "a", "b", "c"]}, [], [])
    assert found["checkpoint_id"] == outcome.checkpoint_id
    checkpoint = {"checkpoint_id": outcome.checkpoint_id, "thread_id": THREAD, "checkpoint_ns": ""}
    assert found["checkpoint"] == checkpoint
    metadata = as_object(found["metadata"])
    assert {"source": "loop", "step": 3, "thread_id": THREAD, "run_attempt": 1, "graph_id": "steps"}.items() <= (
        metadata.items()
    )
    assert metadata["run_id"] == "00000000-0000-7000-8000-000000000001"
    assert isinstance(found["created_at"], str)


async def test_an_interrupted_task_shows_its_question(env: ExecutorEnv) -> None:
    await env.run("asking", input={"said": []})
    found = await env.state("asking", THREAD)
    [task], [interrupt] = items(found["tasks"]), items(found["interrupts"])
    assert (task["name"], task["path"], task["error"]) == ("ask", ["__pregel_pull", "ask"], None)
    assert task["interrupts"] == [interrupt]
    assert interrupt["value"] == "who?"
    assert isinstance(interrupt["id"], str)
    assert len(interrupt["id"]) == 32


async def test_a_failed_task_shows_its_error_unmasked(env: ExecutorEnv) -> None:
    await env.run("failing", input={"said": []})
    found = await env.state("failing", THREAD)
    assert [task["error"] for task in items(found["tasks"])] == ["ZeroDivisionError('secret')"]


async def test_a_subgraph_is_shown_where_it_waits(env: ExecutorEnv) -> None:
    await env.run("sub_as_node", input={"said": []})
    [task] = items((await env.state("sub_as_node", THREAD))["tasks"])
    address = as_object(task["checkpoint"])
    assert address == {"thread_id": THREAD, "checkpoint_ns": f"sub:{task['id']}"}
    [nested] = items((await env.state("sub_as_node", THREAD, subgraphs=True))["tasks"])
    assert nested["checkpoint"] is None
    assert as_object(nested["state"])["next"] == ["ask"]
    inside = await env.state("sub_as_node", THREAD, At(checkpoint_ns=str(address["checkpoint_ns"])))
    assert inside["next"] == ["ask"]


async def test_history_is_newest_first_and_can_be_cut(env: ExecutorEnv) -> None:
    await env.run("steps", input={"said": ["x"]})
    every = await env.history("steps", THREAD, limit=10)
    steps = [as_object(one["metadata"])["step"] for one in every]
    assert steps == [3, 2, 1, 0, -1]
    assert [one["parent_checkpoint_id"] for one in every] == [*(one["checkpoint_id"] for one in every[1:]), None]
    before = str(every[1]["checkpoint_id"])
    assert await env.history("steps", THREAD, before=before, limit=2) == every[2:4]
    assert await env.history("steps", THREAD, limit=10, metadata={"step": 1}) == [every[2]]
    [task] = items(every[1]["tasks"])
    assert (task["name"], task["result"]) == ("c", {"said": ["c"]})


async def test_an_update_is_one_commit_with_the_change_of_the_view(env: ExecutorEnv) -> None:
    await env.run("steps", input={"said": ["x"]})
    before = (await env.access.view("steps", THREAD)).values
    change = await env.access.update_state("steps", THREAD, {"said": ["y"]}, as_node="a", view=before)
    assert change.updated.view == {"append": {"said": ["y"]}}
    assert change.updated.next == ("b",)
    assert apply_diff(before or {}, change.updated.view) == {"said": ["x", "a", "b", "c", "y"]}
    assert [fact.checkpoint_id for fact in change.facts if isinstance(fact, CheckpointSaved)] == [
        change.updated.checkpoint_id
    ]
    assert change.checkpoint["checkpoint_id"] == change.updated.checkpoint_id
    commit(env, change)
    found = await env.state("steps", THREAD)
    assert (found["next"], as_object(found["metadata"])["source"]) == (["b"], "update")


async def test_an_update_hides_the_secrets_of_the_thread_by_the_keys_of_the_server(env: ExecutorEnv) -> None:
    """Keys that AGENTLOG_SECRET_KEYS adds were shown in the metadata of updates."""
    keys = SecretKeys(["*_pin"])
    ports = StateDependencies(env.graphs, env.reads, env.store, SystemIds(), JsonPlusSerializer(), keys)
    config: JsonObject = {"configurable": {"tenant_pin": "4711-never-in-clear", "own": 1}}
    change = await LangGraphAccess(ports).update_state("steps", THREAD, {"said": ["y"]}, as_node="a", config=config)
    [saved] = [fact for fact in change.facts if isinstance(fact, CheckpointSaved)]
    assert saved.metadata["own"] == 1
    assert "4711" not in str(change.facts)


async def test_an_update_on_an_old_checkpoint_forks(env: ExecutorEnv) -> None:
    await env.run("steps", input={"said": ["x"]})
    every = await env.history("steps", THREAD, limit=10)
    at = At(str(every[2]["checkpoint_id"]))
    change = await env.access.update_state("steps", THREAD, {"said": ["fork"]}, as_node="b", at=at)
    commit(env, change)
    found = await env.state("steps", THREAD)
    assert found["values"] == {"said": ["x", "a", "fork"]}
    assert found["parent_checkpoint_id"] == at.checkpoint_id
    outcome = await env.run("steps", run=2, input=None)
    assert outcome.values == {"said": ["x", "a", "fork", "c"]}


async def test_what_starts_from_an_unknown_checkpoint_is_a_root(env: ExecutorEnv) -> None:
    await env.run("steps", input={"said": ["x"]})
    unknown = "019ab000-0000-7000-8000-000000000001"
    change = await env.access.update_state("steps", THREAD, {"said": ["y"]}, at=At(unknown))
    commit(env, change)
    found = await env.state("steps", THREAD)
    assert (found["values"], found["parent_checkpoint"]) == ({"said": ["y"]}, None)
    config: JsonObject = {"configurable": {"checkpoint_id": unknown}}
    assert (await env.run("steps", run=2, input={"said": []}, config=config)).values == {"said": ["a", "b", "c"]}
    first = (await env.history("steps", THREAD, limit=5))[-1]
    assert (as_object(first["metadata"])["step"], first["parent_checkpoint"]) == (-1, None)


async def test_a_run_may_start_from_an_old_checkpoint(env: ExecutorEnv) -> None:
    await env.run("steps", input={"said": ["x"]})
    every = await env.history("steps", THREAD, limit=10)
    config: JsonObject = {"configurable": {"checkpoint_id": every[2]["checkpoint_id"]}}
    outcome = await env.run("steps", run=2, input=None, config=config)
    assert outcome.values == {"said": ["x", "a", "b", "c"]}
    assert len(await env.history("steps", THREAD, limit=20)) == 5 + 3


async def test_an_update_of_a_new_thread_is_its_first_checkpoint(env: ExecutorEnv) -> None:
    change = await env.access.update_state("steps", THREAD, {"said": ["y"]})
    commit(env, change)
    assert (await env.access.view("steps", THREAD)).values == {"said": ["y"]}


@pytest.mark.parametrize(("values", "node"), [(5, None), ({"said": ["x"]}, "nobody"), ({"said": 7}, "a")])
async def test_an_update_that_does_not_fit_is_refused(env: ExecutorEnv, values: Json, node: str | None) -> None:
    await env.run("steps", input={"said": ["x"]})
    with pytest.raises(BadUpdate):
        await env.access.update_state("steps", THREAD, values, as_node=node)


async def test_the_view_without_a_run_is_that_of_before(env: ExecutorEnv) -> None:
    await env.run("asking", input={"said": []})
    before = await env.access.view("asking", THREAD)
    await env.run("asking", run=2, command={"resume": "ann"})
    await env.run("asking", run=3, command={"resume": "yes"})
    third = RunId("00000000-0000-7000-8000-000000000003")
    without = await env.access.view_without_run("asking", THREAD, third)
    assert (without.values, without.next) == (before.values, ("ask",))
    assert without.checkpoint_id == before.checkpoint_id
    first = RunId("00000000-0000-7000-8000-000000000001")
    assert (await ExecutorEnv(env.graphs).access.view_without_run("asking", ThreadId("new"), first)).values is None


@pytest.mark.parametrize("graph", ["asking", "sub_as_node", "sub_of_two"])
async def test_open_questions_are_known_without_the_graph_too(env: ExecutorEnv, graph: str) -> None:
    plain = ChannelState(env.reads, JsonPlusSerializer())
    asked = await env.run(graph, input={"said": ["x"]})
    assert question(asked) in ("who?", "first?")
    before = await plain.channels(THREAD)
    assert (before.interrupts, before.next, before.run_id) == (asked.interrupts, asked.next, FIRST)
    again = await env.run(graph, run=2, command={"resume": "ann"})
    assert question(again) in ("really?", "second?")
    after = await plain.channels(THREAD)
    assert (after.interrupts, after.next) == (again.interrupts, again.next)
    assert await plain.channels(THREAD, SECOND) == before
    done = await env.run(graph, run=3, command={"resume": "yes"})
    after = await plain.channels(THREAD)
    assert (after.values, after.interrupts, after.next) == (done.values, {}, ())


async def test_a_question_that_was_answered_next_to_an_open_one_is_not_asked_again(env: ExecutorEnv) -> None:
    plain = ChannelState(env.reads, JsonPlusSerializer())
    asked = await env.run("both", input={"said": []})
    answers: JsonObject = {str(items(open_)[0]["id"]): "ann" for open_ in list(asked.interrupts.values())[:1]}
    left = await env.run("both", run=2, command={"resume": answers})
    found = await plain.channels(THREAD)
    assert len(asked.interrupts) == 2
    assert len(found.interrupts) == 1
    assert (found.interrupts, found.next) == (left.interrupts, left.next)


async def test_an_unknown_graph_is_not_found(env: ExecutorEnv) -> None:
    with pytest.raises(GraphNotFound):
        await env.state("none", THREAD)


async def test_a_state_is_shown_although_the_input_of_the_last_run_cannot_be_applied(env: ExecutorEnv) -> None:
    done = await env.run("steps", input={"said": ["x"]})
    failed = await env.run("steps", run=2, input={"said": 5})
    assert (failed.status, as_object(failed.error)["error"]) == ("error", "TypeError")
    found = await env.state("steps", THREAD)
    assert (found["values"], found["next"]) == (done.values, ["__start__"])
    second = RunId("00000000-0000-7000-8000-000000000002")
    assert (await env.access.view_without_run("steps", THREAD, second)).values == done.values
    assert (await env.access.view("steps", THREAD)).values == done.values
    assert (await env.access.view_without_run("steps", THREAD, FIRST)).values == done.values


async def test_a_state_without_pending_values_still_tells_how_its_tasks_ended(env: ExecutorEnv) -> None:
    await env.run("asking", input={"said": []})
    await env.run("asking", run=2, command={"update": {"said": 5}})
    found = await env.state("asking", THREAD)
    assert (found["values"], found["next"]) == ({"said": []}, ["ask"])
    assert [one["value"] for one in items(found["interrupts"])] == ["who?"]
    assert len(await env.history("asking", THREAD, limit=9)) == 2


async def test_an_update_repairs_a_thread_whose_pending_values_cannot_be_applied(env: ExecutorEnv) -> None:
    await env.run("steps", input={"said": ["x"]})
    await env.run("steps", run=2, input={"said": 5})
    with pytest.raises(BadUpdate):
        await env.access.update_state("steps", THREAD, {"said": 7}, as_node="c")
    commit(env, await env.access.update_state("steps", THREAD, {"said": ["y"]}, as_node="c"))
    found = await env.state("steps", THREAD)
    assert (found["values"], found["next"]) == ({"said": ["x", "a", "b", "c", "y"]}, [])


FACTORIES = """
from runs_project import steps

def by_thread(config):
    assert config["configurable"]["thread_id"]
    return steps

def by_model(config):
    assert config["configurable"].get("model") == "m"
    assert "api_key" not in config["configurable"]
    return steps

def broken(config):
    if not config["configurable"]["__is_for_execution__"]:
        raise LookupError("no tenant")
    return steps
"""


@pytest.fixture
def factories(tmp_path: Path) -> Iterator[ExecutorEnv]:
    sources = {"runs_project.py": SOURCE, "factories.py": FACTORIES}
    with loaded(
        tmp_path, sources, {name: f"./factories.py:{name}" for name in ("by_thread", "by_model", "broken")}
    ) as found:
        yield ExecutorEnv(found)


async def test_a_factory_gets_the_thread_for_reads_and_updates(factories: ExecutorEnv) -> None:
    done = await factories.run("by_thread", input={"said": []})
    assert (await factories.state("by_thread", THREAD))["values"] == done.values
    assert len(await factories.history("by_thread", THREAD, limit=9)) == 5
    change = await factories.access.update_state("by_thread", THREAD, {"said": ["y"]})
    assert change.updated.view == {"set": {"said": ["a", "b", "c", "y"]}}


async def test_a_factory_gets_the_config_of_the_thread_for_updates(factories: ExecutorEnv) -> None:
    await factories.run("by_model", input={"said": []}, config={"configurable": {"model": "m"}})
    shown: JsonObject = {"configurable": {"model": "m", "api_key": MASK}, "tags": ["t"]}
    change = await factories.access.update_state("by_model", THREAD, {"said": ["y"]}, config=shown)
    assert change.updated.view == {"set": {"said": ["a", "b", "c", "y"]}}
    [saved] = [fact for fact in change.facts if isinstance(fact, CheckpointSaved)]
    assert saved.metadata["model"] == "m"
    assert {"api_key", "created_by"}.isdisjoint(saved.metadata)


async def test_a_factory_gets_the_config_and_the_context_of_the_last_run_for_reads_too(factories: ExecutorEnv) -> None:
    await factories.run("by_model", input={"said": []}, config={"configurable": {"model": "m"}})
    access = factories.access
    with pytest.raises(GraphFailed):
        await access.get_state("by_model", THREAD)
    of_run: JsonObject = {
        "configurable": {"run_id": "r", "checkpoint_id": "c", "api_key": MASK},
        "context": {"model": "m"},
    }
    state = await access.get_state("by_model", THREAD, opened_with=of_run)
    assert state.values is not None
    assert len(await access.get_history("by_model", THREAD, limit=9, opened_with=of_run)) == 5
    change = await access.update_state("by_model", THREAD, {"said": ["y"]}, config={}, opened_with=of_run)
    [saved] = [fact for fact in change.facts if isinstance(fact, CheckpointSaved)]
    assert "model" not in saved.metadata  # the context of a run is in no checkpoint
    assert access.is_made_by_factory("by_model")


async def test_a_factory_gets_the_config_of_a_run_for_its_output_and_for_its_end(factories: ExecutorEnv) -> None:
    done = await factories.run("by_model", input={"said": []}, config={"configurable": {"model": "m"}})
    access, of_run = factories.access, as_object({"context": {"model": "m"}})
    assert await access.output_values("by_model", THREAD, done.values, opened_with=of_run) == done.values
    assert (await access.view("by_model", THREAD, opened_with=of_run)).values == done.values
    left = await access.view_without_run("by_model", THREAD, RunId("another"), opened_with=of_run)
    assert left.values == done.values
    with pytest.raises(GraphFailed):
        await access.view_without_run("by_model", THREAD, RunId("another"))


async def test_what_the_code_of_a_graph_raises_when_read_is_a_named_fault(factories: ExecutorEnv) -> None:
    await factories.run("broken", input={"said": []})
    with pytest.raises(GraphFailed, match="graph broken: its code raised LookupError"):
        await factories.state("broken", THREAD)
    with pytest.raises(GraphFailed):
        await factories.access.view("broken", THREAD)
    with pytest.raises(GraphFailed):
        await factories.access.update_state("broken", THREAD, {"said": []})
