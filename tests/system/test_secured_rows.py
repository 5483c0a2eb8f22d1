"""System tests of PostgreSQL and Redis over TLS and with passwords, configured by URI alone; errors are reported."""

import asyncio
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.certificates import Certificates
from tests.secured_rows import PASSWORD, QUOTED, secured_postgres, secured_redis
from tests.stack_fixtures import open_folder
from tests.system.servers import running_server

from agentlog_infra.cli.demo_script import run_demo
from agentlog_infra.process.child import child_environment

pytestmark = pytest.mark.needs("initdb", "postgres", "redis-server")

SOON_S = 20.0


@dataclass(frozen=True, slots=True)
class Rows:
    """Both servers and their certificates."""

    postgres: int
    redis: int
    certificates: Certificates
    folder: Path

    def database_uri(self, password: str = QUOTED, tls: str | None = None) -> str:
        """Return an address with a password; `tls` replaces the query part that trusts the test's authority."""
        query = f"sslmode=verify-full&sslrootcert={self.certificates.ca}" if tls is None else tls
        return f"postgresql://postgres:{password}@127.0.0.1:{self.postgres}/agentlog?{query}"

    def redis_uri(self, password: str = QUOTED, scheme: str = "rediss", tls: str | None = None) -> str:
        """Return an address with a password; `tls` replaces the query part that trusts the test's authority."""
        query = f"?ssl_ca_certs={self.certificates.ca}" if tls is None else tls
        return f"{scheme}://:{password}@127.0.0.1:{self.redis}/0{query}"

    def agentlog(self, *words: str, **given: str) -> "subprocess.CompletedProcess[str]":
        """Run a command with these addresses, and with an unreachable log."""
        ours = ("AGENTLOG_", "DATABASE_URI", "POSTGRES_URI", "REDIS_URI")
        plain = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        uris = {"DATABASE_URI": self.database_uri(), "REDIS_URI": self.redis_uri()}
        environment = child_environment(plain | {"AGENTLOG_KAFKA_BOOTSTRAP": "127.0.0.1:1"} | uris | given)
        return subprocess.run(
            [sys.executable, "-m", "agentlog_infra.cli.main", *words],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=environment,
            timeout=60,
            check=False,
        )

    def findings(self, **given: str) -> dict[str, tuple[str, str]]:
        """Return the state and message of each check of `agentlog doctor`."""
        done = self.agentlog("doctor", "--json", **given)
        assert_without_secret(done.stdout + done.stderr)
        return {one["name"]: (one["state"], one["found"]) for one in json.loads(done.stdout)["findings"]}


@pytest.fixture(scope="module")
def rows() -> Generator[Rows]:
    """Yield both servers."""
    folder = open_folder()
    certificates = Certificates.make(folder)
    with secured_postgres(folder / "postgres", certificates) as postgres:
        with secured_redis(folder / "redis", certificates) as redis:
            yield Rows(postgres, redis, certificates, folder)


def assert_without_secret(said: str) -> None:
    """Fail if the text contains the password, plain or encoded as in a URI."""
    assert PASSWORD not in said
    assert QUOTED not in said


async def test_a_whole_server_does_the_main_job_over_tls_and_with_passwords(rows: Rows) -> None:
    out = io.StringIO()
    with running_server({"DATABASE_URI": rows.database_uri(), "REDIS_URI": rows.redis_uri()}) as server:

        async def facts(thread_id: str) -> AsyncIterator[str]:
            words = ("events", "--thread", thread_id, "--data-dir", str(server.folder / "data"))
            done = await asyncio.to_thread(rows.agentlog, *words, AGENTLOG_KAFKA_BOOTSTRAP="")
            assert done.returncode == 0, done.stderr
            for line in done.stdout.splitlines():
                yield line

        assert await run_demo(server.url, out, facts) == 0, out.getvalue()
        assert_without_secret(server.log())


def test_doctor_finds_both_and_shows_no_password(rows: Rows) -> None:
    assert rows.agentlog("migrate", "up").returncode == 0
    found = rows.findings()
    assert found["postgres"][0] == "ok", found["postgres"]
    assert found["redis"][0] == "ok", found["redis"]
    assert ":***@" in found["postgres"][1]
    assert ":***@" in found["redis"][1]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("wrong password", "password authentication failed"),
        ("unknown authority", "certificate verify failed"),
        ("another name", "Hostname mismatch"),
        ("no TLS", "no pg_hba.conf entry"),
    ],
)
def test_a_database_that_does_not_let_us_in_is_told_soon(rows: Rows, case: str, words: str) -> None:
    uri = {
        "wrong password": rows.database_uri("not-this"),
        "unknown authority": rows.database_uri(tls=f"sslmode=verify-full&sslrootcert={rows.certificates.other_ca}"),
        "another name": rows.database_uri().replace("@127.0.0.1:", "@localhost:"),
        "no TLS": rows.database_uri(tls="sslmode=disable"),
    }[case]
    began = time.monotonic()
    done = rows.agentlog("migrate", "up", DATABASE_URI=uri)
    assert time.monotonic() - began < SOON_S
    assert done.returncode != 0
    assert "DATABASE_URI" in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert_without_secret(done.stderr)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("wrong password", "invalid username-password pair"),
        ("no password", "Authentication required"),
        ("unknown authority", "certificate verify failed"),
        ("another name", "Hostname mismatch"),
        ("no TLS", "ConnectionError"),
    ],
)
def test_a_redis_that_does_not_let_us_in_is_told_soon(rows: Rows, case: str, words: str) -> None:
    uri = {
        "wrong password": rows.redis_uri("not-this"),
        "no password": f"rediss://127.0.0.1:{rows.redis}/0?ssl_ca_certs={rows.certificates.ca}",
        "unknown authority": rows.redis_uri(tls=f"?ssl_ca_certs={rows.certificates.other_ca}"),
        "another name": rows.redis_uri().replace("@127.0.0.1:", "@localhost:"),
        "no TLS": rows.redis_uri(scheme="redis", tls=""),
    }[case]
    began = time.monotonic()
    state, found = rows.findings(REDIS_URI=uri)["redis"]
    assert time.monotonic() - began < SOON_S
    assert state == "failed"
    assert "REDIS_URI" in found
    assert words in found
