"""Starts simulations in processes of their own, from this checkout or from a copy of it."""

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
    """Wait for its end and return the lines that it wrote."""
    try:
        out, _ = process.communicate(timeout=patience_s)
    finally:
        process.kill()
    assert process.returncode in (0, 1), f"the simulation ended with {process.returncode}"
    return [json.loads(line) for line in out.splitlines()]


def replay(seed: object) -> str:
    """Return the command that lives through a day again."""
    rooms = ":".join((".", *ROOMS))
    return f"PYTHONPATH={rooms} python -m tests.simulation {seed}"


def told(wrong: Sequence[Line]) -> str:
    """Return what went wrong on some days, each with the command that shows it."""
    return "\n".join(f"{replay(line['seed'])}\n    {line['violations']}" for line in wrong[:10])
