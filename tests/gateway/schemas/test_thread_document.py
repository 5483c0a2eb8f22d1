"""JSON of a thread around its stored values: the same document as from parsed values."""

from datetime import UTC, datetime
from typing import NoReturn

import pytest

from agentlog_facts.ids import ThreadId
from agentlog_facts.json_value import JsonObject, dump, load
from agentlog_facts.secret_values import SecretKeys
from agentlog_gateway.schemas import thread_document as module
from agentlog_gateway.schemas.thread_document import thread_document
from agentlog_projections.models.threads import Thread, ThreadText

AT = datetime(2026, 11, 30, tzinfo=UTC)

KEYS = SecretKeys()


def stored(values: JsonObject | None) -> ThreadText:
    metadata: JsonObject = {"graph_id": "g"}
    thread = Thread(
        ThreadId("t"), 0, AT, AT, AT, metadata, "idle", {}, None, None, {}, (), None, 0, None, temporary=False,
    )  # fmt: skip
    text = None if values is None else dump(values)
    return ThreadText(thread, text, None if text is None else len(text))


@pytest.mark.parametrize("values", [None, {}, {"a": [1, "\0", "ä\n"]}, {"__root__": [1]}, {"__root__": 1, "b": 2}])
def test_a_document_shows_the_values_as_clients_know_them(values: JsonObject | None) -> None:
    whole = load(thread_document(stored(values), KEYS))
    assert isinstance(whole, dict)
    assert whole["values"] == ([1] if values == {"__root__": [1]} else values)
    assert (whole["thread_id"], whole["metadata"], whole["interrupts"]) == ("t", {"graph_id": "g"}, {})


def test_fields_are_selected_and_values_extracted() -> None:
    row = stored({"a": [1, 2]})
    assert load(thread_document(row, KEYS, ["values"])) == {"values": {"a": [1, 2]}}
    assert load(thread_document(row, KEYS, ["thread_id"])) == {"thread_id": "t"}
    assert load(thread_document(row, KEYS, [])) == {}
    paths = {"last": ("values", "a", -1), "graph": ("metadata", "graph_id")}
    lifted = {"last": 2, "graph": "g"}
    assert load(thread_document(row, KEYS, ["thread_id"], paths)) == {"thread_id": "t", "extracted": lifted}
    graph = {"graph": paths["graph"]}
    assert load(thread_document(row, KEYS, ["values"], graph)) == {"values": {"a": [1, 2]}, "extracted": {"graph": "g"}}


def test_values_are_neither_parsed_nor_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(given: bytes | str) -> NoReturn:
        pytest.fail("the values were parsed")

    row = stored({"a": "x" * 1000})
    monkeypatch.setattr(module, "load_object", parsed)
    assert b"x" * 1000 in thread_document(row, KEYS)
