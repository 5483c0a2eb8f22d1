"""Tests of `infra/environment.sh`: it finds a suitable Python and installs only what has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "infra" / "environment.sh"


def bash(command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell that has sourced the script."""
    return subprocess.run(
        ["bash", "-c", f'set -euo pipefail; source "{SCRIPT}"; {command}'],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def old_python(tmp_path: Path) -> Path:
    """Create a Python that fails every check, like one that is too old."""
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    return old


def test_a_python_that_is_too_old_is_passed_over(tmp_path: Path, old_python: Path) -> None:
    found = bash("find_python", tmp_path, AGENTLOG_PYTHON=f"{old_python} /nowhere/python {sys.executable}")
    assert found.stdout.strip() == sys.executable


def test_without_a_python_that_will_do_it_says_how_to_go_on(tmp_path: Path, old_python: Path) -> None:
    found = bash("find_python", tmp_path, AGENTLOG_PYTHON=str(old_python))
    assert found.returncode == 1
    assert found.stderr.startswith("error: no Python 3.11 or newer")
    assert "fix:" in found.stderr


def test_what_was_installed_is_current_until_its_file_changes_or_the_folder_moves(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".venv").mkdir(parents=True)
    pins = home / "pins"
    pins.write_text("a==1")
    assert bash("is_current pins pins", home).returncode == 1
    assert bash("stamp pins pins && is_current pins pins", home).returncode == 0
    shutil.copytree(home, tmp_path / "moved")
    assert bash("is_current pins pins", tmp_path / "moved").returncode == 1
    pins.write_text("a==2")
    assert bash("is_current pins pins", home).returncode == 1
