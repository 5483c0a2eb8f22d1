"""Imports point one way: the contracts of import-linter hold, and they notice when they do not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROOMS = ("commands", "projections", "processors", "gateway", "infra")


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over the packages below a root."""
    path = ":".join(str(root / room) for room in ROOMS)
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"],
        cwd=root,
        env={"PYTHONPATH": path, "PATH": "", "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_rooms_import_in_one_direction() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_room_that_looks_up_is_reported(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "stubs")
    for room in (*ROOMS, "tests"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / "commands" / "agentlog_facts" / "planted.py"
    planted.write_text('"""Looks up."""\n\nimport agentlog_infra\nimport agentlog_broker\nimport redis\n')
    judge = tmp_path / "tests" / "system" / "checker" / "rows.py"
    judge.write_text(judge.read_text() + "\nfrom tests.projections import applying\n")
    result = lint(tmp_path)
    assert result.returncode == 1
    for contract in (
        "rooms form a DAG",
        "the core knows no technology",
        "nobody imports the broker",
        "the checker is independent",
    ):
        assert f"{contract} BROKEN" in result.stdout
