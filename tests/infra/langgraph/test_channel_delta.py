"""Delta encoder of lists: what is stored when a list grows or changes, also in place, and what is encoded again."""

import copy
import datetime
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentlog_facts.checkpoint import ChannelHistory, CheckpointSaved, EncodedChannel, channel_entries
from agentlog_facts.ids import Stream, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec, Item
from agentlog_infra.langgraph.checkpoints.channel_delta import ChannelDeltaEncoder, ChannelKey

THREAD, STREAM = ThreadId("t1"), Stream("run-r1")
KEY = ChannelKey(THREAD, "", "m")


class CountingCodec(ChannelCodec):
    """Counts the values that are encoded."""

    def __init__(self) -> None:
        super().__init__(JsonPlusSerializer())
        self.count = 0

    def item(self, value: object, levels: int = 60) -> Item:
        self.count += 1
        return super().item(value, levels)


class Channel:
    """One channel whose versions are encoded and folded again."""

    def __init__(self) -> None:
        self.codec = CountingCodec()
        self.deltas = ChannelDeltaEncoder(self.codec)
        self._history = ChannelHistory()
        self._version = 0

    def store(self, value: object) -> str:
        """Store a version and return its kind; the fold must give the value back."""
        self._version += 1
        entry = self.deltas.entry(KEY, str(self._version), STREAM, value)
        fact = CheckpointSaved(THREAD, None, "", "c", None, {}, {}, (entry,))
        for one in channel_entries(fact, STREAM):
            self._history.fold(THREAD, "", one, self._version)
        assert repr(self.codec.decode_items(self.read().items)) == repr(value)
        return str(entry["kind"])

    def read(self) -> EncodedChannel:
        versions = {"m": str(self._version)}
        return self._history.held(THREAD, "", versions, self._version)["m"]


def kinds(*values: list[object]) -> list[str]:
    channel = Channel()
    return [channel.store(value) for value in values]


def test_a_list_that_grows_is_stored_by_its_new_items() -> None:
    first, answer = HumanMessage("a", id="1"), AIMessage("b", id="2")
    assert kinds([first, 1, {"k": [1]}], [first, 1, {"k": [1]}, answer], [first, 1, {"k": [1]}, answer]) == [
        "full",
        "append",
        "append",
    ]


@pytest.mark.parametrize(("before", "after"), [(1, True), (0, False), (0.0, -0.0), (1, 1.0), ("1", 1), (None, "None")])
def test_an_item_that_only_seems_equal_is_a_change(before: object, after: object) -> None:
    assert kinds([before], [after, "more"]) == ["full", "full"]


def test_an_object_that_was_changed_in_place_is_stored_again() -> None:
    message, table = HumanMessage("a", id="1"), {"k": 1}
    channel = Channel()
    assert channel.store([message, table]) == "full"
    message.content = "changed"
    assert channel.store([message, table, "more"]) == "full"
    table["k"] = 2
    assert channel.store([message, table, "more", "more"]) == "full"
    message.tool_call_id = "extra"  # type: ignore[attr-defined]  # messages take extra fields
    assert channel.store([message, table, "more", "more"]) == "full"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Decimal("1.10"), "1.10"),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "2026-01-02T00:00:00Z"),
        (float("nan"), None),
        ({1: "x"}, {"1": "x"}),
        (b"x", "x"),
        (1, True),
        (1, 1.0),
    ],
)
@pytest.mark.parametrize("read", [False, True])
def test_a_message_is_stored_again_if_pydantic_writes_its_new_value_as_the_old_one(
    before: object, after: object, read: bool
) -> None:
    """A decimal that a node put in the place of its text was lost."""
    for one, other in ((before, after), (after, before)):
        message: object = AIMessage("a", id="1", additional_kwargs={"value": one})
        channel = Channel()
        channel.store([message])
        if read:
            stored = channel.read()
            channel.deltas = ChannelDeltaEncoder(channel.codec)
            (message,) = items = channel.codec.decode_items(stored.items)
            channel.deltas.remember(KEY, stored, items)
        assert isinstance(message, AIMessage)
        message.additional_kwargs["value"] = other
        assert channel.store([message, "more"]) == "full"


def test_a_copy_of_a_message_is_no_change() -> None:
    message = HumanMessage("a", id="1")
    assert kinds([message], [message.model_copy(), "more"]) == ["full", "append"]


@pytest.mark.parametrize("read", [False, True])
def test_a_long_list_costs_its_new_items_only(read: bool) -> None:
    """Each superstep encoded and hashed all 4,000 items of a list."""
    channel = Channel()
    items: list[object] = [*(f"step {n}" for n in range(500)), *(HumanMessage(str(n), id=str(n)) for n in range(200))]
    channel.store(items)
    if read:
        stored = channel.read()
        channel.deltas = ChannelDeltaEncoder(channel.codec)
        items = channel.codec.decode_items(stored.items)
        channel.deltas.remember(KEY, stored, items)
    channel.codec.count = 0
    for _ in range(3):
        items = [*items, HumanMessage("more", id="more")]
        assert channel.store(items) == "append"
    assert channel.codec.count == 3


def test_a_message_that_was_changed_after_it_was_read_is_stored_again() -> None:
    channel = Channel()
    channel.store([HumanMessage("a", id="1"), "text"])
    stored = channel.read()
    message, text = items = channel.codec.decode_items(stored.items)
    channel.deltas.remember(KEY, stored, items)
    assert isinstance(message, HumanMessage)
    message.additional_kwargs["seen"] = True
    assert channel.store([message, text, "more"]) == "full"


def test_a_value_that_was_read_shares_nothing_with_its_stored_form() -> None:
    """A node that changed a nested value in place would have changed what other readers of the version see."""
    channel = Channel()
    table: JsonObject = {"list": [1, {"deep": [2]}], "empty": {}}
    channel.store([AIMessage("a", id="1", additional_kwargs=copy.deepcopy(table)), copy.deepcopy(table)])
    message, read = channel.codec.decode_items(channel.read().items)
    assert isinstance(message, AIMessage)
    for one in (message.additional_kwargs, read):
        assert one == table
        change(one)
        assert one != table
    again, reread = channel.codec.decode_items(channel.read().items)
    assert isinstance(again, AIMessage)
    assert again.additional_kwargs == reread == table


def change(table: Any) -> None:  # Any: a value of user code
    table["list"][1]["deep"].append(3)
    table["empty"]["new"] = 1
