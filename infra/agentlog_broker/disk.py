"""File operations that durability depends on; tests replace them with a failing disk."""

import fcntl
import os
import sys
from pathlib import Path

_F_FULLFSYNC = 51  # macOS: fsync alone leaves the data in the drive's cache


class Disk:
    """Real disk. Every method raises OSError as the system does."""

    def allocate(self, fd: int, size: int) -> None:
        """Reserve the space of a file, so that later writes cannot run out of it."""
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        else:
            os.ftruncate(fd, size)

    def write(self, fd: int, data: bytes, position: int) -> None:
        """Write all bytes at a position."""
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, position)
            view = view[written:]
            position += written

    def sync(self, fd: int) -> None:
        """Make the bytes that were written so far survive a power loss."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, _F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory survive a power loss."""
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, path: Path, data: bytes) -> None:
        """Replace the contents of a file: after a crash it holds all of the old or all of the new bytes."""
        draft = path.with_name(path.name + ".new")
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self.write(fd, data, 0)
            self.sync(fd)
        finally:
            os.close(fd)
        draft.rename(path)
        self.sync_directory(path.parent)
