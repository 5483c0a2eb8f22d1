"""File descriptors of the gateway: a higher limit at the start, and a reserve that clients cannot take."""

import asyncio
import logging
import resource
from collections import OrderedDict

from agentlog_gateway import timeouts

log = logging.getLogger(__name__)

RESERVED = 64
"""Descriptors that connections of clients leave free for those to log, database and Redis."""
WANTED = 1 << 16


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one, at most to WANTED; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return WANTED if soft == resource.RLIM_INFINITY else soft


class DescriptorGate:
    """The connections that wait for a request. When descriptors run out, the one that waits longest is closed."""

    def __init__(self, limit: int) -> None:
        """`limit` is the number of descriptors that the process may have."""
        self._limit = limit
        # Counted, not told by the number of a descriptor: the kernel gives the lowest free one.
        self._most = max(limit - RESERVED, limit // 2)
        self._waiting: OrderedDict[object, asyncio.Transport] = OrderedDict()
        self._told_at = float("-inf")

    def enter(self, connection: object, transport: asyncio.Transport, connections: int) -> None:
        """Add a connection that waits, of this number of connections; close the longest waiting one of too many."""
        self._waiting[connection] = transport
        if connections > self._most:
            self._close_oldest()

    def leave(self, connection: object) -> None:
        """Remove a connection that waits no longer."""
        self._waiting.pop(connection, None)

    def _close_oldest(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= timeouts.DESCRIPTORS_TOLD_S:
            self._told_at = now
            log.error("gateway.out_of_descriptors", extra={"limit": self._limit, "waiting": len(self._waiting)})
        _, transport = self._waiting.popitem(last=False)
        transport.abort()
