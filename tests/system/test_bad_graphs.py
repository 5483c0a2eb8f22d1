"""System tests of graphs that cannot be loaded: the start fails with a message that names graph and reason."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.stack_fixtures import open_folder
from tests.system.servers import free_port

from agentlog_infra.process.child import child_environment

START_S = 90


def start(config: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    words = ["dev", "--config", str(config), "--port", str(free_port()), "--data-dir", str(folder / "data")]
    return subprocess.run(
        [sys.executable, "-m", "agentlog_infra.cli.main", *words, "--no-reload"],
        capture_output=True,
        text=True,
        check=False,
        timeout=START_S,
        env=child_environment({"PATH": "/usr/bin:/bin"}),
    )


@pytest.mark.timeout(2 * START_S)
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import nothing_of_that_name\ngraph = None\n", "nothing_of_that_name"),
        ("graph = 42\n", "graph"),
        ("", "graph"),
        ("def broken(:\n", "SyntaxError"),
    ],
)
def test_a_graph_that_fails_to_load_stops_the_start(source: str, told: str) -> None:
    folder = open_folder()
    (folder / "mine.py").write_text(source)
    (folder / "langgraph.json").write_text('{"dependencies": ["."], "graphs": {"mine": "./mine.py:graph"}}')
    done = start(folder / "langgraph.json", folder)
    assert done.returncode == 2, done.stderr
    assert "mine" in done.stderr
    assert told in done.stderr
