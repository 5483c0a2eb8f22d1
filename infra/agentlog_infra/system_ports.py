"""Clock and source of ids of the operating system."""

import time
from datetime import UTC, datetime

from uuid_utils import uuid7


class SystemClock:
    """Implements `ports.Clock`."""

    def now(self) -> datetime:
        """Return the aware UTC time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()


class SystemIds:
    """Implements `ports.Ids`; ids of one process are strictly increasing."""

    def uuid7(self) -> str:
        """Return a new time-ordered id (RFC 9562, version 7)."""
        return str(uuid7())
