"""Tests of the description of the code that executes runs."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from agentlog_facts.json_value import as_object, dump
from agentlog_facts.version import VERSION
from agentlog_infra.langgraph.loading.environment import describe_environment, git_revision

COMMIT = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first"]


def test_versions_are_those_that_the_distributions_tell(tmp_path: Path) -> None:
    found = describe_environment(tmp_path)
    assert (found["agentlog"], found["python"]) == (VERSION, platform.python_version())
    assert (found["langgraph"], found["langchain_core"]) == (version("langgraph"), version("langchain-core"))
    libraries = as_object(found["libraries"])
    assert {name: version(name) for name in libraries} == libraries
    assert {"langgraph", "langgraph-checkpoint", "langgraph-sdk", "langchain-core", "pydantic"} <= set(libraries)
    assert len(dump(found)) < 1000


def test_a_library_that_is_installed_changes_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe_environment(tmp_path)
    (tmp_path / "tea_pot-1.2.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    after = describe_environment(tmp_path)
    assert after["environment_digest"] != before["environment_digest"]
    assert after["libraries"] == before["libraries"]


def test_a_project_without_a_repository_has_no_revision(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert git_revision(tmp_path) is None


def test_a_project_in_a_repository_has_the_revision_that_is_checked_out(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, *COMMIT], check=True)
    shown = subprocess.run(["git", "-C", tmp_path, "log", "--format=%H"], check=True, capture_output=True, text=True)
    (tmp_path / "project").mkdir()
    assert git_revision(tmp_path / "project") == shown.stdout.strip()


def test_without_git_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision(tmp_path) is None
