"""Tests of the URLs for feedback: from LangSmith, or an error on the stream of a run that has succeeded."""

import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.infra.langgraph.executor_env import ExecutorEnv
from tests.infra.projects import loaded

SOURCE = """
from typing import TypedDict
from langgraph.graph import START, StateGraph

class State(TypedDict):
    said: str

only = StateGraph(State).add_node("only", lambda state: {"said": "x"}).add_edge(START, "only").compile()
"""
KEYS = ["liked", "useful"]


class LangSmith(BaseHTTPRequestHandler):
    """Gives a URL for each key that it is asked for, as LangSmith does."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tokens = [
            {"id": one["run_id"], "url": f"http://feedback/{one['feedback_key']}", "expires_at": "2030-01-01T00:00:00Z"}
            for one in asked
        ]
        body = json.dumps(tokens).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


@pytest.fixture
def langsmith(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), LangSmith)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    monkeypatch.setenv("LANGSMITH_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("LANGSMITH_API_KEY", "a-key")
    yield
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
async def env(tmp_path: Path) -> AsyncIterator[ExecutorEnv]:
    with loaded(tmp_path, {"feedback_project.py": SOURCE}, {"only": "./feedback_project.py:only"}) as graphs:
        yield ExecutorEnv(graphs)


@pytest.mark.usefixtures("langsmith")
async def test_a_stream_ends_with_the_urls_for_feedback(env: ExecutorEnv) -> None:
    outcome = await env.run("only", input={"said": ""}, feedback_keys=[*KEYS])
    last = env.frames[-1]
    assert (outcome.status, last.event) == ("success", "feedback")
    assert last.data == {key: f"http://feedback/{key}" for key in KEYS}


async def test_without_langsmith_the_stream_of_a_good_run_ends_with_an_error(
    env: ExecutorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    outcome = await env.run("only", input={"said": ""}, feedback_keys=[*KEYS])
    assert (outcome.status, outcome.error, env.frames[-1].event) == ("success", None, "error")
    assert env.frames[-1].data == {
        "error": "FeedbackUnavailable",
        "message": "feedback_keys needs LangSmith, but LANGSMITH_API_KEY is not set",
    }
