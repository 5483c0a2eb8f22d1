"""Tests of the simulation itself: each patch in `planted/` breaks a copy of the product and must be detected."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.simulation.runs import ROOMS, ROOT, begun, lines

PLANTED = Path(__file__).with_name("planted")
SEEN_FROM = {
    "01-skip-the-deduplication": 0,
    "02-drop-the-epoch-check": 100,
    "03-store-the-position-early": 0,
    "04-answer-before-the-verdict": 0,
    "05-lose-the-queue-push": 0,
    "07-drop-the-owner-and-position-fence": 210,
    "08-claim-what-is-claimed": 0,
    "09-never-release-a-lost-claim": 20,
    "10-a-retry-is-a-new-intent": 0,
    "11-fold-a-record-twice": 0,
    "12-forget-the-demands": 12,
    "13-give-up-at-a-lost-acknowledgement": 25,
    "14-end-before-a-rollback-is-heard": 60,
    "15-read-what-a-crash-took-back": 50,
}
"""Seeds that detected each bug when this was written; the search begins there."""
DAYS = 400
"""The most days until a bug must be detected."""
IN_THE_BROKER = "06-ack-before-fsync"
BROKER_TEST = "test_a_failing_disk_means_no_acknowledgement_and_later_offsets_without_a_gap[sync]"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy all files of a simulation, so that no bug is ever planted in the checkout."""
    root = tmp_path / "copy"
    for name in (
        *ROOMS,
        "tests/simulation",
        "tests/fakes",
        "tests/system/checker",
        "tests/broker",
        "tests/apache_kafka",
    ):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ("pyproject.toml", *(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("*.py"))):
        shutil.copy(ROOT / path, root / path)
    return root


def _plant(root: Path, name: str, *words: str) -> None:
    """Apply a patch exactly, or fail."""
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(root.parent)}
    command = ["git", "apply", *words, str(PLANTED / f"{name}.patch")]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name} does not apply any more: {done.stderr}"


def test_every_patch_is_asked_for() -> None:
    assert sorted(path.stem for path in PLANTED.iterdir()) == sorted({*SEEN_FROM, IN_THE_BROKER})


@pytest.mark.needs("git")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SEEN_FROM)
def test_a_planted_bug_is_seen_and_its_day_replays_exactly(copy: Path, name: str) -> None:
    _plant(copy, name)
    (seen, *_) = lines(begun(copy, str(SEEN_FROM[name]), str(DAYS), "--until-wrong"), 500.0)
    assert "seed" in seen, f"{name}: not seen in {DAYS} days"
    print(name, "is seen by seed", seen["seed"], seen["violations"])
    (again, *_) = lines(begun(copy, str(seen["seed"]), "1"), 100.0)
    assert again == seen
    _plant(copy, name, "--reverse")
    (reverted,) = lines(begun(copy, str(seen["seed"]), "1"), 100.0)
    assert reverted["wrong"] == 0


@pytest.mark.needs("git")
def test_an_acknowledgement_before_the_sync_is_seen_by_the_test_of_the_broker(copy: Path) -> None:
    before = _broker_test(copy)
    assert before.returncode == 0, before.stdout
    _plant(copy, IN_THE_BROKER)
    broken = _broker_test(copy)
    assert broken.returncode == 1, broken.stdout
    assert BROKER_TEST in broken.stdout
    _plant(copy, IN_THE_BROKER, "--reverse")


def _broker_test(root: Path) -> "subprocess.CompletedProcess[str]":
    test = f"tests/broker/test_disk_failures.py::{BROKER_TEST}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=100)
