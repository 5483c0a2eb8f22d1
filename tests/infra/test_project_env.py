"""Environment of a project: it sets the server's settings, and user code sees its own variables."""

import importlib
import json
import os
from pathlib import Path

import pytest
from tests.infra.projects import loaded

from agentlog_facts.errors import Misconfigured
from agentlog_facts.json_value import Json
from agentlog_infra.project_env import project_environment
from agentlog_infra.settings import Settings, origin_of

GRAPH = """
from langgraph.graph import StateGraph
builder = StateGraph(dict).add_node("n", lambda state: state).set_entry_point("n")
graph = builder.compile()
"""


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith(("AGENTLOG_", "DATABASE_URI", "POSTGRES_URI", "REDIS_URI", "CORS_", "HTTP_", "BG_JOB")):
            monkeypatch.delenv(name)
    return monkeypatch


def project(folder: Path, env: Json) -> Path:
    path = folder / "langgraph.json"
    path.write_text(json.dumps({"graphs": {"mine": "./mine.py:graph"}, "env": env}))
    return path


def test_settings_come_from_the_file_or_object_that_the_project_names(
    no_settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("CORS_ALLOW_ORIGINS=https://only.example\nHTTP_MAX_REQUEST_BODY_BYTES=1000\n")
    given: tuple[Json, ...] = (
        ".env",
        {"CORS_ALLOW_ORIGINS": "https://only.example", "HTTP_MAX_REQUEST_BODY_BYTES": 1000},
    )
    for env in given:
        found = Settings.load({"config": project(tmp_path, env)})
        assert (found.cors_allow_origins, found.max_request_body_bytes) == (("https://only.example",), 1000)
    no_settings.setenv("AGENTLOG_CONFIG", str(tmp_path / "langgraph.json"))
    assert Settings.load().max_request_body_bytes == 1000
    shown = origin_of("max_request_body_bytes", project=project_environment(tmp_path / "langgraph.json"))
    assert shown == "HTTP_MAX_REQUEST_BODY_BYTES in env of langgraph.json"


def test_flags_and_the_real_environment_win(no_settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = project(tmp_path, {"AGENTLOG_PORT": "3001", "BG_JOB_MAX_RETRIES": "7", "AGENTLOG_HOST": "127.0.0.2"})
    no_settings.setenv("AGENTLOG_PORT", "3002")
    found = Settings.load({"config": config, "host": "127.0.0.3"})
    assert (found.port, found.run_max_retries, found.host) == (3002, 7, "127.0.0.3")


def test_the_databases_of_the_application_are_never_those_of_the_server(
    no_settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine = {"DATABASE_URI": "postgresql:///mine", "POSTGRES_URI": "postgresql:///p", "REDIS_URI": "redis://mine"}
    found = Settings.load({"config": project(tmp_path, {**mine})})
    assert (found.database_uri, found.redis_uri) == (None, None)
    found = Settings.load({"config": project(tmp_path, {**mine, "POSTGRES_URI_CUSTOM": "postgresql:///server"})})
    assert found.database_uri == "postgresql:///server"


def test_user_code_sees_its_own_databases_and_none_of_the_server(
    no_settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = Settings.load().model_copy(update={"database_uri": "postgresql:///ours", "redis_uri": "unix:///ours"})
    for name, value in server.environment().items():
        no_settings.setenv(name, value)
    no_settings.setenv("REDIS_URI", "redis://given-to-the-server")
    no_settings.setenv("PLAIN", "real")
    code = f"import os\nSEEN = dict(os.environ)\n{GRAPH}"
    env: Json = {"DATABASE_URI": "postgresql:///mine", "REDIS_URI": "redis://mine", "PLAIN": "project", "MORE": "1"}
    with loaded(tmp_path, {"seeing.py": code}, {"mine": "./seeing.py:graph"}, env=env):
        seen: dict[str, str] = importlib.import_module("seeing").SEEN
    for name in ("DATABASE_URI", "REDIS_URI", "PLAIN", "MORE"):
        no_settings.delenv(name, raising=False)
    assert (seen["DATABASE_URI"], seen["REDIS_URI"]) == ("postgresql:///mine", "redis://mine")
    assert (seen["PLAIN"], seen["MORE"]) == ("real", "1")
    assert [value for value in seen.values() if "ours" in value] == []


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"A=B": "1"}, "expected a name without ="),
        ({"A\0": "1"}, "expected a name without ="),
        ({"": "1"}, "expected a name"),
        ({"A": "1\0"}, "env: A: expected a value without NUL"),
        ("nowhere.env", "expected an object or the path of a file"),
        (7, "expected an object or the path of a file"),
        ("latin.env", "expected UTF-8"),
    ],
)
def test_an_environment_that_no_process_can_have_is_refused_with_its_name(tmp_path: Path, env: Json, told: str) -> None:
    (tmp_path / "latin.env").write_bytes(b"NAME=caf\xe9\n")
    with pytest.raises(Misconfigured, match=told):
        Settings.load({"config": project(tmp_path, env)})


def test_a_configuration_that_cannot_be_read_is_left_to_its_loader(tmp_path: Path) -> None:
    (tmp_path / "langgraph.json").write_text("{")
    assert project_environment(tmp_path / "langgraph.json") == {}
    assert project_environment(tmp_path / "nowhere.json") == {}
