"""Tests of the addresses of a running stack, and of the password of its log."""

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from agentlog_facts.errors import Misconfigured
from agentlog_infra.cli.doctor import examine
from agentlog_infra.process.child import identify
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import Addresses, embedded_login, joined
from agentlog_infra.stack.broker import EmbeddedBroker
from agentlog_infra.stack.data_dir import DataDir
from agentlog_infra.stack.stack_file import write_stack

WAY_OUT = "expected the password of the log, found nothing; stop the stack, delete the file"


def running(folder: Path) -> DataDir:
    """Return a data directory whose stack is this process."""
    data_dir, me = DataDir.at(folder / "data"), identify(os.getpid())
    assert me is not None
    data_dir.make()
    addresses = Addresses(
        "127.0.0.1:1", "postgresql://127.0.0.1:1/x", "redis://127.0.0.1:1", str(data_dir.broker_secret)
    )
    write_stack(data_dir, {"format": 1, "owner": asdict(me), "addresses": asdict(addresses)})
    return data_dir


async def test_an_empty_password_file_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    data_dir = running(tmp_path)
    data_dir.broker_secret.write_text("\n")
    with pytest.raises(Misconfigured, match=f"broker.secret: {WAY_OUT}"):
        await EmbeddedBroker(data_dir).start()
    with pytest.raises(Misconfigured, match=f"broker.secret: {WAY_OUT}"):
        embedded_login(data_dir.broker_secret)


@pytest.mark.parametrize(("content", "found"), [(b"", WAY_OUT.partition(";")[0]), (None, "cannot be read")])
async def test_doctor_reports_a_password_that_it_cannot_read(tmp_path: Path, content: bytes | None, found: str) -> None:
    """It ended with an error instead of its report."""
    data_dir = running(tmp_path)
    if content is not None:
        data_dir.broker_secret.write_bytes(content)
    settings = Settings.load({"data_dir": data_dir.root})
    with pytest.raises(Misconfigured):
        joined(settings)
    report = await examine(settings, ())
    [servers] = [finding for finding in report.findings if finding.name == "servers"]
    assert (servers.state, found in servers.found) == ("failed", True)
    assert ("delete the file" in servers.remedy) == (content is not None)
