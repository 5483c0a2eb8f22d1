"""Lock on a data directory, for one process; the system releases it when the owner dies."""

import fcntl
import os
from pathlib import Path

from .errors import DirectoryInUse


class DirectoryLock:
    """Lock that is held from `take` to `release`; its file names the pid of the owner."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lock"
        self._fd = -1

    def take(self) -> None:
        """Lock the directory. Raises: DirectoryInUse, which names the owner."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._fd, 32, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise DirectoryInUse(self._path.parent, owner or "unknown") from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Unlock the directory."""
        os.close(self._fd)
