"""Layout of a data directory, and the lock that lets one process at a time own it."""

import errno
import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from agentlog_facts.errors import Conflict, Misconfigured

_LOG_LIMIT_BYTES = 8 * 1024 * 1024


class DataDirInUse(Conflict):
    """Another process owns the data directory; the message names its pid."""

    code = "data_dir_in_use"


@dataclass(frozen=True, slots=True)
class DataDir:
    """The folders and files of one embedded stack."""

    root: Path

    @classmethod
    def at(cls, path: str | Path) -> Self:
        """Return the data directory at a path; create nothing."""
        return cls(Path(path).absolute())

    @property
    def broker(self) -> Path:
        """The log: the one folder that must be kept."""
        return self.root / "broker"

    @property
    def broker_secret(self) -> Path:
        """The password of the embedded log, readable by us alone."""
        return self.root / "broker.secret"

    @property
    def postgres(self) -> Path:
        """The rows; can be rebuilt from the log."""
        return self.root / "postgres"

    @property
    def valkey(self) -> Path:
        """The queue; nothing in it is needed for correctness."""
        return self.root / "valkey"

    @property
    def run(self) -> Path:
        """Sockets, and the identities of running children."""
        return self.root / "run"

    @property
    def stack_file(self) -> Path:
        """Addresses and pids of the running stack."""
        return self.root / "stack.json"

    def make(self) -> None:
        """Create the folders, private to us; the account of PostgreSQL may traverse the root folder.

        Raises: Misconfigured if that is not possible.
        """
        with _usable(self.root):
            self._make()

    def _make(self) -> None:
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
        self.run.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
        for folder in (self.broker, self.valkey, self.root / "logs"):
            folder.mkdir(mode=0o700, exist_ok=True)
        ignore = self.root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")

    def open_log(self, name: str) -> IO[bytes]:
        """Open the output file of a server for appending; past 8 MiB it is rotated first; one old file is kept."""
        path = self.root / "logs" / f"{name}.log"
        if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def log_tail(self, name: str, lines: int = 5) -> str:
        """Return the last output lines of a server, for an error message."""
        path = self.root / "logs" / f"{name}.log"
        if not path.exists():
            return ""
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 4096))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


@contextmanager
def _usable(root: Path) -> Generator[None]:
    """Translate faults of the file system into Misconfigured, with the setting that chooses the directory."""
    try:
        yield
    except OSError as error:
        place = "" if error.filename is None or Path(error.filename) == root else f" ({error.filename})"
        raise Misconfigured(
            f"AGENTLOG_DATA_DIR: {root} cannot be used as the data directory: {error.strerror}{place}; "
            "choose a folder that can be written to with --data-dir"
        ) from error


class Lock:
    """Lock of a data directory; it ends at the exit, or when this process dies, however it dies."""

    def __init__(self, data_dir: DataDir) -> None:
        self._path = data_dir.root / "lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Lock the directory without waiting. Raises: DataDirInUse, Misconfigured if nothing can be written there."""
        with _usable(self._path.parent):
            file = self._path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise DataDirInUse(f"data directory {self._path.parent} is in use by process {owner}") from error
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unlock the directory."""
        if self._file is not None:
            self._file.close()
            self._file = None
