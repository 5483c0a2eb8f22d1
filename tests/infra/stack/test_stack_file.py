"""Tests of `stack.json`: several processes write it, and none loses the entries of another."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentlog_infra.process.child import identify
from agentlog_infra.stack.data_dir import DataDir
from agentlog_infra.stack.stack_file import join_roles, living_roles, write_stack


def made(folder: Path) -> DataDir:
    data_dir = DataDir.at(folder / "data")
    data_dir.make()
    return data_dir


def roles(data_dir: DataDir) -> list[tuple[str, str | None]]:
    return sorted((one.role, one.url) for one in living_roles(json.loads(data_dir.stack_file.read_text())))


def test_roles_that_join_at_once_are_all_there_and_stay_when_the_owner_writes(tmp_path: Path) -> None:
    data_dir, me = made(tmp_path), identify(1) or identify(2)
    assert me is not None
    write_stack(data_dir, {"format": 1})
    with ThreadPoolExecutor(8) as threads:
        for number in range(8):
            threads.submit(join_roles, data_dir, f"worker {number}", me.pid, None)
    join_roles(data_dir, "gateway", me.pid, "http://127.0.0.1:1")
    write_stack(data_dir, {"format": 2})
    assert roles(data_dir) == [("gateway", "http://127.0.0.1:1"), *((f"worker {n}", None) for n in range(8))]
    assert json.loads(data_dir.stack_file.read_text())["format"] == 2


@pytest.mark.slow
def test_a_role_that_ended_drops_out(tmp_path: Path) -> None:
    data_dir = made(tmp_path)
    write_stack(data_dir, {"format": 1})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        join_roles(data_dir, "worker", process.pid, None)
        assert roles(data_dir) == [("worker", None)]
        process.communicate(b"\n", timeout=20)
    assert roles(data_dir) == []


def test_no_file_is_made_where_no_stack_runs(tmp_path: Path) -> None:
    data_dir = DataDir.at(tmp_path / "nothing")
    join_roles(data_dir, "worker", 1, None)
    assert not data_dir.root.exists()
