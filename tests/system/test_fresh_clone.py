"""System test of a fresh clone: `./infra/run --once`, twice, without any other command or prepared machine."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "PYENV_VERSION")


def run_once(clone: Path) -> subprocess.CompletedProcess[str]:
    """Run the main job in a clone, in an environment without any setting of this one."""
    plain = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(("PIP_", "pip_"))}
    return subprocess.run(
        [clone / "infra" / "run", "--once"], env=plain, capture_output=True, text=True, check=False, timeout=500
    )


@pytest.mark.full
@pytest.mark.timeout(1000)
def test_a_fresh_clone_does_the_main_job_and_a_second_start_installs_nothing(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    first = run_once(clone)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "installing" in first.stderr
    second = run_once(clone)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "installing" not in second.stderr
    for stdout in (first.stdout, second.stdout):
        assert "That is settled: paid 25 EUR to Ana." in stdout
        assert "RunFinished" in stdout
