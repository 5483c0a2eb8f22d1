"""Tests of `agentlog dev`: it starts everything on one port, and stops everything with it."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import psutil
import pytest
from tests.stack_fixtures import open_folder, until
from tests.system.api import Api
from tests.system.checker.judgement import judged_well

from agentlog_infra.process.child import child_environment, spawn, stop_child
from agentlog_infra.supervisor.dev_server import free_port

pytestmark = pytest.mark.slow

EXAMPLES = Path(str(files("agentlog_infra") / "examples" / "langgraph.json"))
OUR_SETTINGS = ("AGENTLOG_", "DATABASE_URI", "POSTGRES_URI", "REDIS_URI")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder that PostgreSQL's account may enter."""
    made = open_folder()
    yield made
    shutil.rmtree(made)


class Dev:
    """A running `agentlog dev`."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, banner: str, data_dir: Path) -> None:
        self.process, self.url, self.banner, self.data_dir = process, url, banner, data_dir

    def descendants(self) -> list[psutil.Process]:
        """Return all its descendants."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def role_pid(self, role: str) -> int | None:
        """Return the process of a role from the data directory, None between two."""
        with contextlib.suppress(FileNotFoundError):
            return int(json.loads((self.data_dir / "run" / f"role-{role}.json").read_text())["pid"])
        return None

    def log_address(self) -> str:
        """Return the address of the log, with its login."""
        return f"agentlog:{(self.data_dir / 'broker.secret').read_text()}@{self.address('kafka')}"

    def address(self, part: str) -> str:
        """Return the address of a server of the stack."""
        return str(json.loads((self.data_dir / "stack.json").read_text())["addresses"][part])


def words(port: int, data_dir: Path, config: Path = EXAMPLES) -> list[str]:
    """Return the command line."""
    places = ["--data-dir", str(data_dir), "--port", str(port), "--config", str(config)]
    return [sys.executable, "-m", "agentlog_infra.cli.main", "dev", *places]


def environment() -> dict[str, str]:
    """Return the environment without settings of the test run's own."""
    return child_environment({n: v for n, v in os.environ.items() if not n.startswith(OUR_SETTINGS)})


@asynccontextmanager
async def dev(data_dir: Path) -> AsyncGenerator[Dev]:
    """Yield a running server once it reports that it is ready."""
    port = free_port("127.0.0.1")
    process = await spawn(words(port, data_dir), death_signal=signal.SIGTERM, env=environment(), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(90):
            banner = (await process.stdout.readuntil(b"Ctrl-C stops it.\n")).decode()
        yield Dev(process, f"http://127.0.0.1:{port}", banner, data_dir)
    finally:
        await stop_child(process, ((signal.SIGTERM, 60.0),))


def get_ok(url: str) -> int:
    with urllib.request.urlopen(f"{url}/ok", timeout=10) as answer:
        return int(answer.status)


async def test_it_answers_says_where_refuses_a_second_one_and_stops_in_order(folder: Path) -> None:
    async with dev(folder) as running:
        assert await asyncio.to_thread(get_ok, running.url) == 200
        assert running.url in running.banner
        assert f"curl -s {running.url}/runs/wait" in running.banner
        assert json.loads((folder / "stack.json").read_text())["url"] == running.url
        second = await asyncio.to_thread(
            subprocess.run,
            words(free_port("127.0.0.1"), folder),
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        assert second.returncode == 1
        assert f"in use by process {running.process.pid}" in second.stderr
        children = running.descendants()
        running.process.send_signal(signal.SIGINT)
        assert await running.process.wait() == 0
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, timeout=10)
        assert alive == []
        assert not (folder / "stack.json").exists()


async def test_a_killed_worker_comes_back_and_a_killed_supervisor_takes_all_with_it(folder: Path) -> None:
    async with dev(folder) as running:
        worker = running.role_pid("worker-1")
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        await until(lambda: running.role_pid("worker-1") not in (worker, None), within_secs=60)
        assert await asyncio.to_thread(get_ok, running.url) == 200
        await Api(running.url).call("POST", "/runs/wait", {"assistant_id": "steps", "input": {}})
        _, found = await judged_well(running.log_address(), running.address("postgres"))
        assert list(found.runs.values()) == ["success"]
        children = running.descendants()
        assert len(children) >= 6
        running.process.kill()
        await running.process.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, timeout=30)
        assert alive == []


def test_a_graph_that_cannot_be_loaded_stops_the_start_with_its_reason(folder: Path) -> None:
    (folder / "broken.py").write_text("import no_such_module_anywhere\n")
    config = folder / "langgraph.json"
    config.write_text(json.dumps({"dependencies": ["."], "graphs": {"broken": "./broken.py:graph"}}))
    line = words(free_port("127.0.0.1"), folder / "data", config)
    done = subprocess.run(line, capture_output=True, text=True, env=environment(), check=False, timeout=90)
    assert done.returncode == 2
    assert "broken" in done.stderr
    assert "no_such_module_anywhere" in done.stderr
    assert "ready" not in done.stdout
