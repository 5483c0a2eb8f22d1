"""Fold of channels: given entries in order of acceptance, then the channels of a checkpoint."""

import pytest

from agentlog_facts.checkpoint import (
    ChannelEntry,
    ChannelHistory,
    CheckpointSaved,
    EncodedChannel,
    WritesSaved,
    channel_entries,
    evolve,
    put_write,
    write_entries,
)
from agentlog_facts.errors import Corrupt
from agentlog_facts.ids import Stream, ThreadId
from agentlog_facts.json_value import Json

T1 = ThreadId("t1")
ONE, OTHER = Stream("run-r1"), Stream("run-r2")
BASE = EncodedChannel("list", "1", ONE, items=("a",), full_length=1)


def full(version: str, value: Json, on: Stream = ONE) -> ChannelEntry:
    return ChannelEntry("x", version, on, "full", value)


def appended(version: str, items: Json, base: str, length: int, on: Stream = ONE) -> ChannelEntry:
    return ChannelEntry("x", version, on, "append", items, base, on, length)


def folded(*entries: ChannelEntry) -> ChannelHistory:
    """Return a history in which the first entry was accepted at 1, and so on."""
    history = ChannelHistory()
    for seq, entry in enumerate(entries, 1):
        history.fold(T1, "", entry, seq)
    return history


def saved(*channels: Json) -> CheckpointSaved:
    return CheckpointSaved(T1, None, "", "c1", None, {}, {}, channels)


def test_a_whole_value_stands_for_itself_and_a_list_for_its_items() -> None:
    assert evolve(None, full("1", 5)) == EncodedChannel("value", "1", ONE, value=5)
    assert evolve(None, full("1", {"items": ["a"]})) == BASE
    assert evolve(None, full("1", {"items": ["a"], "more": 1})) == EncodedChannel(
        "value", "1", ONE, value={"items": ["a"], "more": 1}
    )


def test_items_are_appended_to_their_base() -> None:
    assert evolve(BASE, appended("2", ["b", "c"], "1", 1)) == EncodedChannel(
        "list", "2", ONE, items=("a", "b", "c"), full_length=1, parts=1
    )


@pytest.mark.parametrize(
    ("base", "found"),
    [
        (None, "found nothing"),
        (EncodedChannel("value", "1", ONE, value=5), "found a value"),
        (EncodedChannel("list", "1", ONE, items=("a", "b")), "found 2 items"),
    ],
)
def test_items_are_appended_to_nothing_but_the_named_list(base: EncodedChannel | None, found: str) -> None:
    with pytest.raises(Corrupt, match=f"expected 1 items of 1 on run-r1 to append to, {found}"):
        evolve(base, appended("2", ["b"], "1", 1))


def test_a_base_is_the_last_one_of_its_version_on_its_own_stream() -> None:
    history = folded(
        full("1", {"items": ["mine"]}), full("1", {"items": ["theirs"]}, OTHER), appended("2", ["more"], "1", 1)
    )
    assert history.held(T1, "", {"x": "2"}, 3)["x"].items == ("mine", "more")


def test_a_version_that_is_stated_again_holds_for_later_checkpoints_only() -> None:
    history = folded(full("1", "old"), full("1", "new"))
    assert [history.held(T1, "", {"x": "1"}, seq)["x"].value for seq in (1, 2, 3)] == ["old", "new", "new"]
    assert history.held(T1, "", {"x": "1"}, 0) == {}


def test_a_channel_without_value_or_of_an_unknown_version_is_left_out() -> None:
    history = folded(full("1", 5), ChannelEntry("x", "2", ONE, "empty", None))
    assert history.held(T1, "", {"x": "2", "y": "1"}, 2) == {}
    assert history.knows((T1, "", "x", "2"))
    assert not history.knows((T1, "", "y", "1"))


def test_a_version_that_was_folded_is_not_remembered_over() -> None:
    history = folded(full("1", {"items": ["a"]}))
    history.remember((T1, "", "x", "1"), None)
    assert history.held(T1, "", {"x": "1"}, 1) == {"x": BASE}


def test_an_entry_of_an_unknown_kind_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="channel x 1: expected kind full, append or empty, found half"):
        list(channel_entries(saved({"channel": "x", "version": 1, "kind": "half"}), ONE))


def test_a_write_without_an_index_is_corrupt() -> None:
    fact = WritesSaved(T1, None, "", "c1", "task", "", ({"index": "0", "channel": "x", "value": 1},))
    with pytest.raises(Corrupt, match="write of task task: expected an index, found '0'"):
        list(write_entries(fact))


def test_a_write_with_a_reserved_index_replaces_and_any_other_stays() -> None:
    writes: dict[int, str] = {}
    for index, value in ((0, "first"), (-3, "first"), (0, "second"), (-3, "second")):
        put_write(writes, index, index, value)
    assert writes == {0: "first", -3: "second"}
