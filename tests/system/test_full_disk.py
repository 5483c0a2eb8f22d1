"""System tests of a full disk: nothing acknowledged is lost, and the server comes back with space."""

import os
import subprocess
import urllib.request
from base64 import b64encode
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.stack_fixtures import open_folder
from tests.system.api import Api
from tests.system.checker.judgement import judged_well
from tests.system.servers import RunningServer, wait_until

from agentlog_facts.json_value import JsonObject, as_object, load

ALL_MIB, LOG_MIB = 256, 96
"""Room for a new server with its first files; each of them ends within the test."""
FILL_MIB = 1


def may_mount() -> str | None:
    """Return why no file system can be mounted here, None if one can."""
    if os.geteuid() != 0:
        return "needs root: only root may mount a small file system"
    folder = open_folder()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        subprocess.run(["umount", str(folder)], check=True)
        return None
    return f"mount: {done.stderr.strip()}"


@contextmanager
def small_disk(folder: Path, mib: int) -> Generator[Path]:
    """Mount a file system of this size; skip the test where that is not allowed, except as root under CI."""
    why = may_mount()
    if why is not None:
        if os.environ.get("CI") and os.geteuid() == 0:
            pytest.fail(why)
        pytest.skip(why)
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=711", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all space that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * FILL_MIB * 1024 * 1024)
        except OSError:
            return filler


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("part", "mib"), [(".", ALL_MIB), ("broker", LOG_MIB)], ids=["all data", "the log alone"])
async def test_a_full_disk_loses_nothing_and_space_brings_the_server_back(part: str, mib: int) -> None:
    folder = open_folder()
    (folder / "data").mkdir(mode=0o711)
    with small_disk(folder / "data" / part, mib) as disk:
        server = RunningServer(folder, {"AGENTLOG_REQUEST_DEADLINE_SECS": "3"})
        server.start()
        try:
            api = Api(server.url)
            acknowledged = [await api.thread() for _ in range(3)]
            await api.call("POST", f"/threads/{acknowledged[0]}/runs/wait", {"assistant_id": "steps", "input": {}})
            filler = fill(disk)
            refused = 0
            while refused < 5:  # until what was preallocated is used up, too
                body = b'{"metadata":{"a":"%s"}}' % b64encode(os.urandom(600_000))  # nothing that can be compressed
                status, content = await api.raw("POST", "/threads", body)
                assert status in (200, 503, 504), content
                if status == 200:
                    acknowledged.append(str(as_object(load(content))["thread_id"]))
                else:
                    refused += 1
            assert (await api.raw("GET", f"/threads/{acknowledged[0]}"))[0] in (200, 503)

            filler.unlink()
            wait_until(lambda: _created(server), 120, "a thread is created once there is space")
            server.wait_ok()
            for thread_id in acknowledged:
                found: JsonObject = await api.get(f"/threads/{thread_id}")
                assert found["thread_id"] == thread_id
            run: JsonObject = {"assistant_id": "steps", "input": {}}
            values = as_object(await api.call("POST", f"/threads/{acknowledged[1]}/runs/wait", run))
            assert values["done"] == ["one", "two", "three", "four", "five"]
            await judged_well(server.kafka, server.postgres)
        finally:
            assert server.stop() == 0, server.log()[-3000:]


def _created(server: RunningServer) -> bool:
    """Return whether a new thread is accepted."""
    request = urllib.request.Request(f"{server.url}/threads", b"{}", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
