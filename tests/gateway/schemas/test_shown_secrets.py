"""Secrets and server metadata in responses: masked for clients, and shown while a run is running."""

from dataclasses import replace

import pytest
from tests.gateway.schemas.test_response_models import ASSISTANT, RUN

from agentlog_facts.json_value import JsonObject, as_object
from agentlog_facts.secret_values import MASK, SecretKeys
from agentlog_gateway.schemas.responses import assistant_json, run_json

KEYS = SecretKeys()
CONFIG: JsonObject = {"configurable": {"api_key": "sk-clear", "own": 1}, "metadata": {"a": 1}}
SERVER: JsonObject = {"langgraph_version": "1"}


@pytest.mark.parametrize(
    ("status", "more"), [("running", {"run_attempt": 2} | SERVER), ("success", {}), ("pending", {})]
)
def test_the_metadata_of_a_running_run_names_its_attempt_and_the_server(status: str, more: JsonObject) -> None:
    shown = run_json(replace(RUN, status=status, attempt=2, kwargs={"config": CONFIG}), KEYS, SERVER)
    config = as_object(as_object(shown["kwargs"])["config"])
    assert config["metadata"] == {"a": 1} | more
    assert config["configurable"] == {"api_key": MASK, "own": 1}


def test_an_assistant_shows_no_secret() -> None:
    shown = assistant_json(replace(ASSISTANT, config=CONFIG, context={"password": "p"}), KEYS)
    assert (as_object(shown["config"])["configurable"], shown["context"]) == (
        {"api_key": MASK, "own": 1},
        {"password": MASK},
    )
