"""Description of the code that executes runs: versions of Python and libraries, and the git revision of the project.

It is made once for each process. Names and versions come from the folders of the installed distributions, because to
read their metadata takes ten times as long.
"""

import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.version import VERSION
from agentlog_infra import timeouts

_FOLDER = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)\.(?:dist-info|egg-info)")
_TOLD = ("langgraph", "langchain", "pydantic")
"""Beginnings of the names of the libraries whose versions are told; the digest covers all others too."""


def describe_environment(root: Path) -> JsonObject:
    """Return the versions of agentlog, Python and libraries, a digest of all of them, and the revision of `root`."""
    installed = dict(sorted(_installed()))
    told: dict[str, Json] = {name: found for name, found in installed.items() if name.startswith(_TOLD)}
    listed = "\n".join(f"{name}=={found}" for name, found in installed.items())
    return {
        "agentlog": VERSION,
        "langgraph": version("langgraph"),
        "langchain_core": version("langchain-core"),
        "python": platform.python_version(),
        "libraries": told,
        "environment_digest": hashlib.sha256(listed.encode()).hexdigest(),
        "git_revision": git_revision(root),
    }


def git_revision(root: Path) -> str | None:
    """Return the commit that is checked out at `root`, None without git or without a repository there."""
    command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=timeouts.GIT_S, check=False, env=kept)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def _installed() -> Iterator[tuple[str, str]]:
    """Yield normalised name and version of each installed distribution."""
    for folder in map(Path, dict.fromkeys(sys.path)):
        for entry in folder.iterdir() if folder.is_dir() else ():
            found = _FOLDER.fullmatch(entry.name)
            if found is not None:
                yield re.sub(r"[-_.]+", "-", found["name"]).lower(), found["version"]
