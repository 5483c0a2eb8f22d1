"""The server's keys of `configurable`: clients do not set them, and neither context nor rows show them."""

import pytest

from agentlog_facts.configurable import CHECKPOINT_ADDRESS, CHECKPOINT_KEYS, is_hidden, is_reserved, is_server_key


@pytest.mark.parametrize(
    "name", ["langgraph_auth", "langgraph_auth_user", "langgraph_authority", "__", "__pregel_send"]
)
def test_no_client_sets_a_reserved_key(name: str) -> None:
    assert is_reserved(name)
    assert is_server_key(name)
    assert is_hidden(name)


@pytest.mark.parametrize(
    "name", ["thread_id", "run_id", "graph_id", "assistant_id", "langgraph_request_id", *CHECKPOINT_KEYS]
)
def test_a_key_that_the_server_sets_is_no_context_and_not_shown(name: str) -> None:
    assert not is_reserved(name)
    assert is_server_key(name)
    assert is_hidden(name)


@pytest.mark.parametrize("name", ["model", "_x", "langgraph", "thread", "checkpoint"])
def test_any_other_key_is_the_users(name: str) -> None:
    assert not is_reserved(name)
    assert not is_server_key(name)
    assert not is_hidden(name)


def test_the_identity_of_the_user_is_the_clients_and_rows_of_earlier_facts_hide_it() -> None:
    assert not is_server_key("user_id")
    assert is_hidden("user_id")


def test_a_key_that_begins_like_that_of_the_request_is_context_and_not_shown() -> None:
    assert not is_server_key("langgraph_request_id_of_mine")
    assert is_hidden("langgraph_request_id_of_mine")


def test_a_checkpoint_is_shown_with_its_thread() -> None:
    assert CHECKPOINT_ADDRESS == ("checkpoint_id", "thread_id", "checkpoint_ns", "checkpoint_map")
    assert {"checkpoint_id", "checkpoint_ns", "checkpoint_map"} == CHECKPOINT_KEYS
