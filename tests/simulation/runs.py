"""Simulations in processes of their own, from this checkout or from a copy of it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]
ROOMS = ("commands", "projections", "processors", "infra")
Line: TypeAlias = dict[str, object]


def begun(root: Path, *words: str, hash_seed: str = "random") -> subprocess.Popen[str]:
    """Start `python -m tests.simulation WORDS` over the code under `root`."""
    path = os.pathsep.join([str(root), *(str(root / room) for room in ROOMS)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tests.simulation", *words]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)


def lines(process: subprocess.Popen[str], patience_s: float) -> list[Line]:
    """Wait for the end of the process and return its lines."""
    try:
        out, _ = process.communicate(timeout=patience_s)
    finally:
        process.kill()
    assert process.returncode in (0, 1), f"the simulation ended with {process.returncode}"
    return [json.loads(line) for line in out.splitlines()]


def replay(seed: object) -> str:
    """Return the command that replays a day."""
    rooms = ":".join((".", *ROOMS))
    return f"PYTHONPATH={rooms} python -m tests.simulation {seed}"


def told(wrong: Sequence[Line]) -> str:
    """Return the violations of some days, each with its replay command."""
    return "\n".join(f"{replay(line['seed'])}\n    {line['violations']}" for line in wrong[:10])
