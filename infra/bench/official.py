"""Official development server of LangGraph (`langgraph dev`) as a process beside ours, in an environment of its own.

Nothing of it is imported: it is installed where the repository's `.venv-official` is missing, started, and asked over
HTTP like any server.
"""

# ruff: noqa: ASYNC230  (nothing else runs on this loop while the server starts)

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.server import Server, free_port, until_ready

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-official"
PACKAGES = Path(__file__).with_name("official.txt")
JOBS = 10
"""Runs at a time, as many as a worker of ours executes by default."""


def install() -> Path:
    """Return the `langgraph` command of the environment, which is made if it is missing or out of date.

    Raises: subprocess.CalledProcessError if the packages cannot be installed.
    """
    stamp = ENVIRONMENT / "packages.txt"
    if not stamp.exists() or stamp.read_text() != PACKAGES.read_text():
        print(f"installing {PACKAGES.name} into {ENVIRONMENT.name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(PACKAGES)], check=True)
        stamp.write_text(PACKAGES.read_text())
    return ENVIRONMENT / "bin" / "langgraph"


@asynccontextmanager
async def official_server(config: Path) -> AsyncGenerator[Server]:
    """Start `langgraph dev` in an empty folder, yield it when it answers, and stop it."""
    command = install()
    with tempfile.TemporaryDirectory(prefix="official-bench-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        words = [
            "dev",
            "--config",
            str(_copied(config, Path(folder))),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--no-browser",
        ]
        words += ["--no-reload", "--allow-blocking", "--n-jobs-per-worker", str(JOBS)]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "infra"), "LANGSMITH_TRACING": "false", "LOG_LEVEL": "WARNING"}
        log = Path(folder, "official.log")
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                command, *words, cwd=folder, env=env, stdout=output, stderr=output, start_new_session=True
            )
        try:
            await until_ready(f"http://127.0.0.1:{port}", process, log)
            yield Server(f"http://127.0.0.1:{port}", [process.pid])
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 60)


def _copied(config: Path, folder: Path) -> Path:
    """Return a copy of the configuration in the server's own folder: it reads paths from there."""
    found = json.loads(config.read_text())
    found["graphs"] = {name: str((config.parent / path).resolve()) for name, path in found["graphs"].items()}
    copied = folder / config.name
    copied.write_text(json.dumps(found))
    return copied
