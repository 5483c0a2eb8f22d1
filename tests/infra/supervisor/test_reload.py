"""Tests of the watching of source files."""

import asyncio
from pathlib import Path

from agentlog_infra.supervisor.reload import snapshot, wait_for_change


def test_sources_count_and_hidden_or_installed_files_do_not(tmp_path: Path) -> None:
    for name in ("graph.py", "langgraph.json", ".env", "sub/tool.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in (".agentlog/x.json", ".venv/lib.py", "node_modules/x.json", "__pycache__/graph.py", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {str(Path(path).relative_to(tmp_path)) for path in snapshot(tmp_path)}
    assert found == {"graph.py", "langgraph.json", ".env", "sub/tool.py"}


async def test_a_changed_a_new_and_a_removed_file_are_noticed(tmp_path: Path) -> None:
    graph = tmp_path / "graph.py"
    known = snapshot(tmp_path)
    for change in (lambda: graph.write_text("a = 1"), lambda: graph.write_text("a = 22"), graph.unlink):
        waiting = asyncio.create_task(wait_for_change(tmp_path, known))
        change()
        async with asyncio.timeout(10):
            found = await waiting
        assert found != known
        known = found
