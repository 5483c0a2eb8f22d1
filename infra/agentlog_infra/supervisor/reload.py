"""Watching of source files for a development server: modification times, once a second."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

from agentlog_infra import timeouts

FILES_LIMIT = 5000
_SUFFIXES = (".py", ".json", ".toml", ".yaml", ".yml", ".env")
_SKIPPED = {"node_modules", "__pycache__", "venv", "site-packages"}


def snapshot(folder: Path) -> dict[str, int]:
    """Return the modification time (ns) of each visible source file below a folder, of at most `FILES_LIMIT`."""
    found: dict[str, int] = {}
    for entry in _files(folder):
        found[entry.path] = entry.stat().st_mtime_ns
        if len(found) >= FILES_LIMIT:
            break
    return found


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    pending = [os.fspath(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue  # removed or closed to us since it was listed
        for entry in listed:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name not in _SKIPPED:
                    pending.append(entry.path)
            elif entry.name.endswith(_SUFFIXES) and entry.is_file():
                yield entry


async def wait_for_change(folder: Path, before: dict[str, int]) -> dict[str, int]:
    """Return the new snapshot once it differs from `before`."""
    while True:
        await asyncio.sleep(timeouts.RELOAD_POLL_S)
        now = await asyncio.to_thread(snapshot, folder)
        if now != before:
            return now
