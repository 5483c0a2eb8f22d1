"""Server under load, such as an `agentlog dev` in a folder of its own, and the CPU time of its processes."""

# ruff: noqa: ASYNC230, ASYNC240  (nothing else runs on this loop while the server starts)

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

START_S = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A server under load; `pids` are the known roots of its processes; `data_dir` is set if it is ours."""

    url: str
    pids: Sequence[int] = ()
    data_dir: Path | None = None

    def cpu_s(self) -> float | None:
        """Return the CPU seconds of all its processes so far, those that ended included; None if none is known."""
        return sum(_cpu_s(pid) for pid in self._processes()) if self.pids else None

    def cpu_by_process(self) -> dict[str, float]:
        """Return the CPU seconds of its processes by their names."""
        found: dict[str, float] = {}
        for pid in self._processes():
            name = _name(pid)
            found[name] = found.get(name, 0.0) + _cpu_s(pid)
        return found

    def memory_by_process(self) -> dict[str, float]:
        """Return the proportional set sizes of its processes by their names, in MB."""
        found: dict[str, float] = {}
        for pid in self._processes():
            name = _name(pid)
            found[name] = found.get(name, 0.0) + _pss_mb(pid)
        return found

    def _processes(self) -> set[int]:
        return {process for pid in self.pids for process in _family(pid)}


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    stat = _stat(pid)
    return sum(int(ticks) for ticks in stat[11:15]) / TICKS if stat else 0.0


def _pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "gone"
    if "-m" in words:
        return " ".join(words[words.index("-m") + 1 :][:2])
    return Path(words[0].partition(" ")[0].rstrip(":")).name


def _family(root: int) -> set[int]:
    parents = {int(path.name): _stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
    found = {root}
    while True:
        more = {pid for pid, stat in parents.items() if stat and int(stat[1]) in found} - found
        if not more:
            return found
        found |= more


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def own_server(config: Path) -> AsyncGenerator[Server]:
    """Start `agentlog dev` with the defaults, yield it when it is ready, and stop it."""
    with tempfile.TemporaryDirectory(prefix="agentlog-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # if root runs this, PostgreSQL's account must enter it
        port = free_port()
        words = ["dev", "--config", str(config), "--port", str(port), "--data-dir", f"{folder}/data", "--no-reload"]
        started = time.perf_counter()
        with Path(folder, "dev.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "agentlog_infra.cli.main", *words, stdout=log, stderr=log, start_new_session=True
            )
        try:
            await until_ready(f"http://127.0.0.1:{port}", process, Path(folder, "dev.log"))
            print(f"server ready after {time.perf_counter() - started:.2f} s", file=sys.stderr)
            yield Server(f"http://127.0.0.1:{port}", [process.pid], Path(folder, "data"))
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 60)


async def until_ready(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    """Wait until the server answers `/ok`. Raises: RuntimeError with the end of its log."""
    end = time.monotonic() + START_S
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < end:
            if process.returncode is not None:
                break
            try:
                async with session.get(f"{url}/ok") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)  # the server announces itself to people only, so poll
    raise RuntimeError(f"the server did not become ready:\n{log.read_text()[-3000:]}")
