"""Folders for files and sockets of the embedded servers that the account they run under can reach."""

import contextlib
import json
import os
import pwd
import stat
import tempfile
from pathlib import Path

from agentlog_facts.errors import Misconfigured
from agentlog_infra.process.child import Account, folder_identity, write_atomically

SOCKET_PATH_LIMIT_BYTES = 107
_LONGEST_SOCKET_NAME = "/.s.PGSQL.5432.lock"
_ACCOUNTS = ("postgres", "nobody")


def server_account() -> Account | None:
    """Return the account PostgreSQL runs under: None (our own) unless we are root, which PostgreSQL refuses.

    Raises: Misconfigured where root finds no unprivileged account.
    """
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            if found.pw_uid != 0:
                return Account(name, found.pw_uid, found.pw_gid)
    raise Misconfigured(
        f"PostgreSQL refuses to run as root and this system has none of the accounts {', '.join(_ACCOUNTS)}: "
        "run agentlog as another user, or set DATABASE_URI"
    )


def reachable(path: Path, account: Account | None, *, needs: int = stat.S_IXOTH) -> bool:
    """Return whether an account may pass all folders above `path` and has `needs` (rwx bits of "other") on it."""
    if account is None:
        return True
    path = path.resolve()
    try:
        above = all(_allowed(folder, account, stat.S_IXOTH) for folder in path.parents)
        return above and _allowed(path, account, needs)
    except OSError:
        return False


def _allowed(path: Path, account: Account, bits: int) -> bool:
    found = path.stat()
    shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
    return (found.st_mode >> shift) & bits == bits


def private_folder(path: Path, account: Account | None) -> Path:
    """Create a folder that only its owner may enter; refuse a folder of another user.

    Raises: Misconfigured.
    """
    owner = os.geteuid() if account is None else account.uid
    try:
        path.mkdir(mode=0o700)
        if account:
            os.chown(path, account.uid, account.gid)
    except FileExistsError:
        pass
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
        raise Misconfigured(f"{path}: expected a folder owned by uid {owner}, found uid {found.st_uid}")
    if stat.S_IMODE(found.st_mode) != 0o700:
        path.chmod(0o700)
    return path


def fits_a_socket(folder: Path) -> bool:
    """Return whether the sockets of our servers, in this folder, stay below the limit of a unix socket's path."""
    return len(os.fsencode(folder)) + len(_LONGEST_SOCKET_NAME) <= SOCKET_PATH_LIMIT_BYTES


def socket_folder(wanted: Path, record: Path, account: Account | None) -> Path:
    """Return a private folder for sockets: the wanted one, else a short one elsewhere that `record` remembers."""
    if fits_a_socket(wanted) and reachable(wanted.parent, account):
        return private_folder(wanted, account)
    return folder_elsewhere(record, account)


def folder_elsewhere(record: Path, account: Account | None, *, bases: tuple[str, ...] | None = None) -> Path:
    """Return the private folder outside the data directory that `record` names; make and record one if it is gone.

    A record that was copied with its data directory does not count: the folder belongs to the original.

    Raises: Misconfigured where no temporary folder is short enough and open to the account.
    """
    home = folder_identity(record.parent)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        found = json.loads(record.read_text())
        if found.get("home", home) == home:
            return private_folder_if_ours(Path(found["path"]), account)
    for base in bases or (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        folder = Path(base)
        if not fits_a_socket(folder / "agentlog-12345678") or not reachable(folder, account):
            continue
        made = Path(tempfile.mkdtemp(prefix="agentlog-", dir=folder))
        if account:
            os.chown(made, account.uid, account.gid)
        write_atomically(record, json.dumps({"path": str(made), "home": home}))
        return made
    raise Misconfigured("no temporary folder (TMPDIR, /tmp, /var/tmp) has a short path that the server may enter")


def private_folder_if_ours(path: Path, account: Account | None) -> Path:
    """Return an existing private folder; raise FileNotFoundError if it is gone or no longer ours alone."""
    owner = os.geteuid() if account is None else account.uid
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) != 0o700:
        raise FileNotFoundError(path)
    return path
