"""Tests of unsupported keys of `langgraph.json`: they forbid a start, give a warning, or ask for nothing."""

import json
import logging
from pathlib import Path

import pytest
from tests.infra.projects import write_project

from agentlog_facts.errors import Misconfigured
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.langgraph.loading.config import load_config, unsupported_keys
from agentlog_infra.langgraph.loading.unsupported_keys import VARIABLES
from agentlog_infra.settings import Settings, names_of

REFUSED: list[tuple[str, Json, str]] = [
    ("auth", {"path": "./auth.py:auth"}, "auth"),
    ("encryption", {"path": "./crypt.py:encryption"}, "encryption"),
    ("http", {"app": "./app.py:app"}, "http.app"),
    ("http", {"mount_prefix": "/api"}, "http.mount_prefix"),
    ("http", {"disable_runs": True}, "http.disable_runs"),
    ("http", {"disable_meta": True}, "http.disable_meta"),
    ("http", {"configurable_headers": {"includes": ["x-user"]}}, "http.configurable_headers"),
    ("http", {"of_tomorrow": 1}, "http.of_tomorrow"),
    ("checkpointer", {"path": "./saver.py:saver"}, "checkpointer.path"),
    ("checkpointer", {"backend": "mongo"}, "checkpointer.backend"),
    ("checkpointer", {"serde": {"allowed_msgpack_modules": []}}, "checkpointer.serde"),
    ("store", {"index": {"dims": 2, "embed": "x:y"}}, "store.index"),
    ("store", {"path": "./store.py:store"}, "store.path"),
]
WARNED: list[tuple[str, Json, str]] = [
    ("priority", {"path": "./p.py:p"}, "priority"),
    ("webhooks", {"url": {"require_https": True}}, "webhooks"),
    ("ui", {"agent": "./ui.tsx"}, "ui"),
    ("ui_config", {"shared": ["react"]}, "ui_config"),
    ("http", {"logging_headers": {"includes": ["x-a"]}}, "http.logging_headers"),
    ("store", {"ttl": {"default_ttl": 1}}, "store.ttl"),
]
NOTHING: list[tuple[str, Json]] = [
    ("auth", None),
    ("http", {}),
    ("http", {"disable_runs": False, "mount_prefix": "/", "app": None}),
    ("http", {"disable_mcp": True, "disable_a2a": True, "disable_store": True}),
    ("http", {"cors": {"allow_origins": ["https://a.example"]}}),
    ("checkpointer", {"backend": "default", "ttl": {"default_ttl": 1}}),
    ("store", {}),
]


@pytest.mark.parametrize(("key", "value", "named"), REFUSED)
def test_a_key_that_may_not_be_ignored_forbids_the_start(tmp_path: Path, key: str, value: Json, named: str) -> None:
    with pytest.raises(Misconfigured, match=rf"langgraph\.json: {named}: not supported yet by agentlog"):
        write_project(tmp_path, {}, {"g": "m:g"}, **{key: value})


@pytest.mark.parametrize(("key", "value", "named"), WARNED)
def test_a_key_without_effect_gives_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str, value: Json, named: str
) -> None:
    with caplog.at_level(logging.WARNING):
        write_project(tmp_path, {}, {"g": "m:g"}, **{key: value})
    assert [(record.message, vars(record)["key"]) for record in caplog.records] == [
        ("config.key_without_effect", named)
    ]


@pytest.mark.parametrize(("key", "value"), NOTHING)
def test_a_supported_key_or_a_default_gives_no_warning(tmp_path: Path, key: str, value: Json) -> None:
    write_project(tmp_path, {}, {"g": "m:g"}, **{key: value})
    assert unsupported_keys(tmp_path / "langgraph.json") == ()


@pytest.mark.parametrize("key", ["http", "checkpointer", "store"])
def test_a_section_of_another_type_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(Misconfigured, match=f"{key}: expected an object"):
        write_project(tmp_path, {}, {"g": "m:g"}, **{key: "yes"})


def test_every_forbidding_key_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as raised:
        write_project(tmp_path, {}, {"g": "m:g"}, auth={"path": "a:b"}, encryption={"path": "a:b"}, ui={"a": "b"})
    assert [line.split(": ")[1] for line in str(raised.value).splitlines()] == ["auth", "encryption"]


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("LANGGRAPH_AUTH", '{"path":"./auth.py:auth"}', "auth"),
        ("LANGGRAPH_HTTP", '{"disable_threads":true}', "http.disable_threads"),
        ("LANGGRAPH_AUTH_TYPE", "langsmith", "LANGGRAPH_AUTH_TYPE"),
        ("MOUNT_PREFIX", "/api", "MOUNT_PREFIX"),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_a_variable_forbids_the_start_like_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, named: str, in_file: bool
) -> None:
    if not in_file:
        monkeypatch.setenv(name, value)
    with pytest.raises(Misconfigured, match=f": {named}: not supported yet"):
        write_project(tmp_path, {}, {"g": "m:g"}, env={name: value} if in_file else {})


@pytest.mark.parametrize("in_file", [False, True])
def test_no_name_of_a_setting_forbids_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_file: bool) -> None:
    """LANGGRAPH_AES_KEY, the key of secrets, was refused although it is a setting."""
    names = [name for attribute in Settings.model_fields for name in names_of(attribute)]
    env: JsonObject = {}
    for name in names:
        if in_file:
            env[name] = "1"
        else:
            monkeypatch.setenv(name, "1")
    config = write_project(tmp_path, {}, {"g": "m:g"}, env=env)
    assert "LANGGRAPH_AES_KEY" in names
    assert unsupported_keys(config.root / "langgraph.json") == ()


def test_a_variable_wins_over_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGGRAPH_HTTP", '{"cors":{"allow_origins":["https://b.example"]}}')
    monkeypatch.setenv("LANGGRAPH_AUTH_TYPE", "noop")
    config = write_project(tmp_path, {}, {"g": "m:g"}, http={"app": "./app.py:app"})
    assert config.document["http"] == {"cors": {"allow_origins": ["https://b.example"]}}


def test_a_variable_that_is_no_json_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": {"g": "m:g"}}))
    for name in VARIABLES:
        monkeypatch.setenv(name, "{")
        with pytest.raises(Misconfigured, match=f"{name}: expected JSON"):
            load_config(tmp_path / "langgraph.json")
        monkeypatch.delenv(name)
