"""Tests of folders for sockets: access of another account, length of the path, private folders."""

import os
from pathlib import Path

import pytest

from agentlog_facts.errors import Misconfigured
from agentlog_infra.process.child import Account
from agentlog_infra.stack.socket_dirs import fits_a_socket, private_folder, reachable, socket_folder

OTHER = Account("other", 4242, 4242)


def test_a_folder_below_a_closed_one_is_not_reachable(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    assert not reachable(inner, OTHER)
    assert reachable(inner, None), "our own account needs no permission of others"


def test_root_is_reachable_and_what_is_missing_is_not() -> None:
    assert reachable(Path("/"), OTHER)
    assert not reachable(Path("/no/such/folder"), OTHER)


def test_the_owner_s_bits_count_for_the_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o640)
    ours = Account("us", os.geteuid(), os.getegid())
    assert reachable(file, ours, needs=0o004)
    assert not reachable(file, ours, needs=0o001)
    assert not reachable(file, OTHER, needs=0o004)


def test_a_socket_s_path_stays_below_the_limit(tmp_path: Path) -> None:
    assert fits_a_socket(Path("/tmp/agentlog-12345678"))
    assert not fits_a_socket(Path("/" + "d" * 95))
    record = tmp_path / "sockets.json"
    elsewhere = socket_folder(tmp_path / ("d" * 100), record, None)
    assert fits_a_socket(elsewhere)
    assert elsewhere.stat().st_mode & 0o777 == 0o700
    assert socket_folder(tmp_path / ("d" * 100), record, None) == elsewhere, "the next start uses the same folder"
    elsewhere.rmdir()


def test_a_private_folder_is_closed_again_and_one_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "private", None)
    folder.chmod(0o755)
    assert private_folder(folder, None).stat().st_mode & 0o777 == 0o700
    with pytest.raises(Misconfigured, match="expected a folder owned by uid 4242"):
        private_folder(folder, OTHER)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(Misconfigured):
        private_folder(tmp_path / "link", None)
