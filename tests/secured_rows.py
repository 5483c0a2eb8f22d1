"""PostgreSQL and Redis servers that demand TLS and a password, run from the programs of the machine."""

import os
import signal
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tests.apache_kafka.server import free_ports
from tests.certificates import Certificates
from tests.programs import path_of
from tests.system.servers import wait_until

from agentlog_infra.process.child import Account
from agentlog_infra.stack.socket_dirs import server_account

PASSWORD = "hunter2 @/:%&?#"
"""A password with all characters that have a meaning in a URI."""
QUOTED = quote(PASSWORD, safe="")
READY_S = 30.0


@contextmanager
def secured_postgres(folder: Path, certificates: Certificates) -> Generator[int]:
    """Run a server that refuses connections without TLS; yield its port. Its account must have access to the folder."""
    account = server_account()
    folder.mkdir()
    rows, secret, key = folder / "rows", folder / "password", folder / "server.key"
    secret.write_text(PASSWORD)
    key.touch(0o600)
    key.write_bytes(certificates.server_key.read_bytes())
    if account is not None:
        for path in (folder, secret, key):
            os.chown(path, account.uid, account.gid)
    words = ["-D", str(rows), "-U", "postgres", "--pwfile", str(secret), "--auth=scram-sha-256", "--no-sync"]
    uid, gid = (None, None) if account is None else (account.uid, account.gid)
    initdb = [path_of("initdb"), *words]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder, user=uid, group=gid)
    (rows / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    (port,) = free_ports(1)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "ssl": "on",
        "ssl_cert_file": certificates.server,
        "ssl_key_file": key,
        "fsync": "off",
    }
    given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with _running([path_of("postgres"), "-D", str(rows), *given], folder, signal.SIGINT, port, account):
        yield port


@contextmanager
def secured_redis(folder: Path, certificates: Certificates) -> Generator[int]:
    """Run a server that demands TLS and a password; yield its port."""
    folder.mkdir()
    (port,) = free_ports(1)
    settings = {
        "bind": "127.0.0.1",
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(certificates.server),
        "tls-key-file": str(certificates.server_key),
        "tls-ca-cert-file": str(certificates.ca),
        "tls-auth-clients": "no",
        "requirepass": PASSWORD,
        "save": "",
        "dir": str(folder),
    }
    config = folder / "redis.conf"
    config.write_text("".join(f'{name} "{value}"\n' for name, value in settings.items()))
    with _running([path_of("redis-server"), str(config)], folder, signal.SIGTERM, port, None):
        yield port


@contextmanager
def _running(
    words: list[str], folder: Path, stop: signal.Signals, port: int, account: Account | None
) -> Generator["subprocess.Popen[bytes]"]:
    with (folder / "out.log").open("wb") as out:
        uid, gid = (None, None) if account is None else (account.uid, account.gid)
        process = subprocess.Popen(
            words, stdout=out, stderr=out, cwd=folder, start_new_session=True, user=uid, group=gid
        )
    try:
        wait_until(lambda: _listens(port) or process.poll() is not None, READY_S, f"{words[0]} listens")
        assert process.poll() is None, (folder / "out.log").read_text()[-3000:]
        yield process
    finally:
        process.send_signal(stop)
        process.wait(READY_S)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False
