"""The fast tests are fast: none of them uses a server, and one that starts a process fails."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.slow_tests import SERVERS

ROOT = Path(__file__).parents[2]
LEAST = 1_000
"""How many fast tests there are at least, so that an empty set is no proof."""


@pytest.mark.slow
def test_no_fast_test_uses_the_stack() -> None:
    words = [sys.executable, "-m", "pytest", "--fast", "--setup-plan", "-v", "-p", "no:cacheprovider"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, timeout=250)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    used = set(re.findall(r"^\s*SETUP\s+\w (\w+)", done.stdout, re.MULTILINE))
    assert len(used) > 10, "fixtures are listed"
    assert used & SERVERS == set()
    assert "tests/system/test_" not in done.stdout
    assert done.stdout.count("::test_") >= LEAST


def test_a_fast_test_that_starts_a_process_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"starts python\S* and is not marked: pytest.mark.slow"):
        subprocess.run([sys.executable, "-c", ""], check=True)
