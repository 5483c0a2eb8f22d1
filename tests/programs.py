"""Search for the programs that tests need besides Python."""

import os
import shutil
from pathlib import Path

_POSTGRES = Path("/usr/lib/postgresql")
"""Debian keeps the programs of each PostgreSQL in a folder of its own, which is not on PATH."""


def find(program: str) -> str | None:
    """Return the path of a program, None if it is not on this machine."""
    own = sorted((str(folder) for folder in _POSTGRES.glob("*/bin")), reverse=True)
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *own]))


def path_of(program: str) -> str:
    """Return the path of a program that the test demanded with `needs`."""
    found = find(program)
    assert found, f"{program} is not on this machine"
    return found
