"""Tests of the `agentlog` command: output streams, exit statuses, errors, lazy imports."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agentlog_infra.process.child import child_environment

pytestmark = pytest.mark.slow

HEAVY = ("langgraph", "langchain_core", "aiokafka", "asyncpg", "redis", "fastapi", "pydantic", "alembic")
COMMANDS = ("dev", "serve", "demo", "events", "doctor", "topics", "migrate", "rebuild")


def agentlog(*words: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command in an empty environment, without a terminal."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AGENTLOG_", "DATABASE", "REDIS"))
    }
    return subprocess.run(
        [sys.executable, "-m", "agentlog_infra.cli.main", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=child_environment(kept | environment),
        check=False,
    )


def test_help_names_every_command_and_loads_none(tmp_path: Path) -> None:
    script = (
        "import sys, atexit, agentlog_infra.cli.main as cli\n"
        f"atexit.register(lambda: print([n for n in sys.modules if n.split('.')[0] in {HEAVY!r}], file=sys.stderr))\n"
        "sys.argv = ['agentlog', '--help']\n"
        "cli.main()\n"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=child_environment(), check=False)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert all(f" {name} " in done.stdout for name in COMMANDS)


def test_the_help_of_no_command_loads_langgraph_or_kafka(tmp_path: Path) -> None:
    heavy = ("langgraph", "langchain_core", "aiokafka", "asyncpg", "redis", "fastapi")
    script = (
        "import sys, agentlog_infra.cli.main as cli\n"
        f"for name in {COMMANDS!r}:\n"
        "    cli.agentlog.main([name, '--help'], standalone_mode=False)\n"
        f"print([n for n in sys.modules if n.split('.')[0] in {heavy!r}], file=sys.stderr)\n"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=child_environment(), check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    assert all(f"agentlog {name}" in done.stdout or f" {name} " in done.stdout for name in COMMANDS)


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    done = agentlog("bogus", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'bogus'" in done.stderr


def test_an_unknown_role_is_a_usage_error_that_names_the_roles(tmp_path: Path) -> None:
    done = agentlog("serve", "barista", cwd=tmp_path)
    assert done.returncode == 2
    assert "gateway" in done.stderr
    assert "stack" in done.stderr


def test_a_missing_configuration_is_told_with_its_fix_and_without_a_trace(tmp_path: Path) -> None:
    done = agentlog("dev", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "error: langgraph.json does not exist: name your langgraph.json with --config or AGENTLOG_CONFIG\n"
    )
    assert not (tmp_path / ".agentlog").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "EOF while parsing an object at line 1 column 1"),
        ("{}", 'graphs: expected {"<id>": "./file.py:attribute"}, found nothing'),
        ('{"graphs": {}}', 'graphs: expected {"<id>": "./file.py:attribute"}, found {}'),
        ('{"graphs": {"g": "m"}}', "graphs.g: expected ./file.py:attribute or module:attribute, found 'm'"),
    ],
)
def test_a_wrong_configuration_is_refused_before_anything_starts(tmp_path: Path, text: str, told: str) -> None:
    """An empty `graphs` was refused only by the first role, when servers and tables had been made."""
    (tmp_path / "langgraph.json").write_text(text)
    done = agentlog("dev", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path}/langgraph.json: {told}\n"
    assert not (tmp_path / ".agentlog").exists()


def test_the_trace_is_shown_only_with_debug(tmp_path: Path) -> None:
    assert "Traceback" in agentlog("--debug", "dev", cwd=tmp_path).stderr


def test_a_taken_port_is_an_error_that_names_port_and_owner(tmp_path: Path) -> None:
    (tmp_path / "langgraph.json").write_text('{"graphs": {"g": "m:g"}}')
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = agentlog("dev", "--port", str(port), cwd=tmp_path)
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken" in done.stderr
    if sys.platform == "linux":
        assert f"by process {os.getpid()} (" in done.stderr
        assert " )" not in done.stderr
    assert "fix: choose another port with --port" in done.stderr
    assert not (tmp_path / ".agentlog").exists()


@pytest.mark.parametrize("words", [("events",), ("topics", "plan"), ("migrate", "check"), ("serve", "gateway")])
def test_without_a_running_stack_a_command_says_so_and_how_to_go_on(words: tuple[str, ...], tmp_path: Path) -> None:
    done = agentlog(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith(f"error: no stack runs on {tmp_path}/.agentlog")
    assert "agentlog serve stack" in done.stderr


def test_a_wrong_setting_is_a_usage_error_that_names_it(tmp_path: Path) -> None:
    done = agentlog("events", cwd=tmp_path, AGENTLOG_PORT="many")
    assert done.returncode == 2
    assert done.stderr.startswith("error: AGENTLOG_PORT: ")


def test_doctor_lists_every_setting_with_its_origin_and_fails_without_servers(tmp_path: Path) -> None:
    done = agentlog("doctor", "--json", cwd=tmp_path, N_JOBS_PER_WORKER="3", LOG_COLOR="1")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    settings = {line["name"]: line for line in report["settings"]}
    assert (settings["N_JOBS_PER_WORKER"]["value"], settings["N_JOBS_PER_WORKER"]["origin"]) == (
        "3",
        "N_JOBS_PER_WORKER",
    )
    assert settings["AGENTLOG_PORT"]["origin"] == "default"
    found = {line["name"]: line for line in report["findings"]}
    assert found["servers"]["state"] == "failed"
    assert found["servers"]["remedy"]
    assert found["LOG_COLOR"]["state"] == "warning"
    assert not report["healthy"]


def test_dev_starts_nothing_where_a_key_would_be_ignored_silently(tmp_path: Path) -> None:
    (tmp_path / "langgraph.json").write_text('{"graphs": {"g": "m:g"}, "auth": {"path": "./auth.py:auth"}}')
    done = agentlog("dev", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "auth: not supported yet by agentlog" in done.stderr
    assert not (tmp_path / ".agentlog").exists()


def test_doctor_tells_keys_without_effect_and_those_that_forbid_a_start(tmp_path: Path) -> None:
    document = {"graphs": {"g": "m:g"}, "auth": {"path": "./auth.py:auth"}, "ui": {"g": "./ui.tsx"}}
    (tmp_path / "langgraph.json").write_text(json.dumps(document))
    done = agentlog("doctor", "--json", cwd=tmp_path, BG_JOB_ISOLATED_LOOPS="true")
    found = {line["name"]: line for line in json.loads(done.stdout)["findings"]}
    assert (found["auth"]["state"], found["ui"]["state"]) == ("failed", "warning")
    assert "not supported yet" in found["auth"]["remedy"]
    assert "BG_JOB_ISOLATED_LOOPS" not in found, "it is kept"


def test_tables_are_plain_without_a_terminal_and_obey_the_locale(tmp_path: Path) -> None:
    done = agentlog("doctor", cwd=tmp_path, PYTHONIOENCODING="ascii", FORCE_COLOR="")
    assert "\x1b[" not in done.stdout
    assert done.stdout.isascii()


def test_the_version_is_printed(tmp_path: Path) -> None:
    done = agentlog("--version", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("agentlog, version ")
