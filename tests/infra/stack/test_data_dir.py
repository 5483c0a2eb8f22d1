"""Data directories that cannot be used, and hosts that are not of this machine: an error with the setting to change."""

import os
from pathlib import Path

import pytest

from agentlog_facts.errors import Misconfigured
from agentlog_infra.process.ports import demand_free
from agentlog_infra.stack.data_dir import DataDir, Lock


def test_a_data_directory_that_is_a_file_is_refused_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Misconfigured, match=r"AGENTLOG_DATA_DIR: .*file.* --data-dir"):
            DataDir.at(place).make()


def test_a_data_directory_that_nobody_may_write_to_is_refused_with_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))

    place = DataDir.at(tmp_path / "data")
    place.make()
    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(Misconfigured, match=r"AGENTLOG_DATA_DIR: .*Read-only file system"):
        Lock(place).__enter__()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_a_host_of_another_machine_is_refused_with_its_setting(host: str) -> None:
    with pytest.raises(Misconfigured, match=f"AGENTLOG_HOST, AGENTLOG_PORT: cannot listen on {host}:0"):
        demand_free(host, 0)
