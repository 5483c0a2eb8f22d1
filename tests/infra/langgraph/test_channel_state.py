"""Tests of the state of a thread without its graph: given checkpoints of runs, then values."""

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.infra.langgraph.memory_checkpoints import MemoryCheckpoints

from agentlog_facts.checkpoint import CheckpointSaved, WritesSaved
from agentlog_facts.graph_ports import StoredState, ThreadView
from agentlog_facts.ids import RunId, ThreadId, stream
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec
from agentlog_infra.langgraph.checkpoints.channel_state import ChannelState

T1 = ThreadId("t1")
SERDE = JsonPlusSerializer()
OWN: dict[str, object] = {"__start__": {"x": 0}, "branch:to:b": None}


def saved(run: str, checkpoint: str, values: dict[str, object]) -> CheckpointSaved:
    codec = ChannelCodec(SERDE)
    channels: tuple[JsonObject, ...] = tuple(
        {"channel": name, "version": checkpoint, "kind": "full", "value": codec.encode(value)}
        for name, value in values.items()
    )
    versions: dict[str, Json] = {name: checkpoint for name in values}
    kept: JsonObject = {"v": 4, "id": checkpoint, "channel_versions": versions}
    return CheckpointSaved(T1, RunId(run), "", checkpoint, None, kept, {}, channels)


def views(*checkpoints: CheckpointSaved) -> ChannelState:
    reads = MemoryCheckpoints()
    for one in checkpoints:
        reads.fold(stream("run", str(one.run_id)), (one,))
    return ChannelState(reads, SERDE)


async def test_the_last_checkpoint_shows_its_keys_as_the_api_does() -> None:
    shown = await views(saved("r1", "c1", {**OWN, "x": [1, 2], "said": HumanMessage("hi", id="m1")})).channels(T1)
    assert shown.values is not None
    assert (set(shown.values), shown.values["x"], shown.checkpoint_id) == ({"x", "said"}, [1, 2], "c1")
    said = shown.values["said"]
    assert isinstance(said, dict)
    assert (said["type"], said["content"]) == ("human", "hi")


async def test_a_run_that_is_rolled_back_does_not_show() -> None:
    both = views(saved("r1", "c1", {"x": 1}), saved("r2", "c2", {"x": 2}))
    assert (await both.channels(T1)).values == {"x": 2}
    assert (await both.channels(T1, RunId("r2"))).values == {"x": 1}


async def test_a_thread_without_checkpoints_has_no_state() -> None:
    assert await views().channels(T1) == StoredState()


async def test_the_nodes_that_an_edge_triggered_and_that_have_not_finished_are_left_to_run() -> None:
    triggered = saved("r1", "c1", {"x": 1, "branch:to:a": None, "branch:to:b": None, "branch:to:c": None})
    triggered.checkpoint["versions_seen"] = {"a": {"branch:to:a": "c1"}}
    write: JsonObject = {"index": 0, "channel": "x", "value": ChannelCodec(SERDE).encode(2)}
    done = WritesSaved(T1, RunId("r1"), "", "c1", "task", "~__pregel_pull, c", (write,))
    reads = MemoryCheckpoints()
    reads.fold(stream("run", "r1"), (triggered, done))
    assert (await ChannelState(reads, SERDE).channels(T1)).next == ("b",)


async def test_a_key_without_a_stored_value_keeps_what_the_thread_shows() -> None:
    one = saved("r1", "c1", {"x": 1})
    one.checkpoint["channel_versions"] = {"x": "c1", "delta": "c1", "branch:to:a": "c1"}
    found = await views(one).channels(T1)
    assert found.missing == {"delta"}
    before: JsonObject = {"x": 0, "delta": [1], "gone": 2}
    assert found.view_after(RunId("r1"), before, ("a",)).values == {"x": 1, "delta": [1]}
    assert found.view_after(RunId("r2"), before, ("a",)) == ThreadView(before, ("a",), {}, "c1")
