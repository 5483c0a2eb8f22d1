"""Server: store, handlers and listener, started in this order and stopped in reverse."""

import asyncio
import logging

from .configs import ConfigAdmin
from .connections import Connection, Hub
from .disk import Disk
from .errors import Misconfigured
from .fetch import Fetching
from .groups import Groups, ProducerIds
from .lock import DirectoryLock
from .login import Secret
from .produce import Producing
from .requests import Handler
from .settings import BrokerSettings
from .store import Store
from .topics import TopicAdmin
from .versions import (
    ALTER_CONFIGS,
    CREATE_PARTITIONS,
    CREATE_TOPICS,
    DELETE_RECORDS,
    DELETE_TOPICS,
    DESCRIBE_CONFIGS,
    DESCRIBE_GROUPS,
    FETCH,
    FIND_COORDINATOR,
    HEARTBEAT,
    INCREMENTAL_ALTER_CONFIGS,
    INIT_PRODUCER_ID,
    JOIN_GROUP,
    LEAVE_GROUP,
    LIST_GROUPS,
    LIST_OFFSETS,
    METADATA,
    OFFSET_COMMIT,
    OFFSET_FETCH,
    PRODUCE,
    SYNC_GROUP,
)

log = logging.getLogger("agentlog_broker")


def _secret(settings: BrokerSettings) -> Secret | None:
    """Return the secret of the logins, None without one. Raises: Misconfigured for a file without a password."""
    if settings.secret_file is None:
        return None
    password = settings.secret_file.read_text().strip()
    if not password:
        raise Misconfigured(f"{settings.secret_file}: expected a password, found nothing")
    return Secret(password)


class Server:
    """Broker in this process; call `start`, then `stop`."""

    def __init__(self, settings: BrokerSettings, disk: Disk | None = None) -> None:
        self._settings = settings
        self._disk = disk or Disk()
        self._lock = DirectoryLock(settings.data_dir)

    async def start(self) -> int:
        """Recover, listen, and return the port. Raises: DirectoryInUse, Damaged, OSError."""
        self._settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock.take()
        try:
            self._store = Store(self._settings, self._disk)
            self._store.open()
            topics, groups = TopicAdmin(self._store, self._settings), Groups(self._store, self._settings)
            self._hub = Hub(self._settings, self._handlers(topics, groups), _secret(self._settings))
            self._store.on_pressure = self._update_congestion
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(
                lambda: Connection(self._hub), self._settings.host, self._settings.port, backlog=256
            )
        except BaseException:
            self._lock.release()
            raise
        port: int = self._listener.sockets[0].getsockname()[1]
        topics.address = groups.address = (self._settings.host, port)
        log.info("server.started", extra={"port": port, "topics": len(self._store.catalog.topics)})
        return port

    def _handlers(self, topics: TopicAdmin, groups: Groups) -> dict[int, Handler]:
        producing, fetching = Producing(self._store), Fetching(self._store, self._settings.max_fetch_bytes)
        configs, producer_ids = ConfigAdmin(self._store, self._settings), ProducerIds(self._store)
        return {
            PRODUCE: producing.handle,
            FETCH: fetching.handle,
            LIST_OFFSETS: topics.list_offsets,
            METADATA: topics.metadata,
            OFFSET_COMMIT: groups.commit,
            OFFSET_FETCH: groups.fetch_offsets,
            FIND_COORDINATOR: groups.find_coordinator,
            JOIN_GROUP: groups.join,
            HEARTBEAT: groups.heartbeat,
            LEAVE_GROUP: groups.leave,
            SYNC_GROUP: groups.sync,
            DESCRIBE_GROUPS: groups.describe,
            LIST_GROUPS: groups.list_groups,
            CREATE_TOPICS: topics.create_topics,
            DELETE_TOPICS: topics.delete_topics,
            DELETE_RECORDS: topics.delete_records,
            INIT_PRODUCER_ID: producer_ids.init,
            DESCRIBE_CONFIGS: configs.describe,
            ALTER_CONFIGS: configs.alter,
            CREATE_PARTITIONS: topics.create_partitions,
            INCREMENTAL_ALTER_CONFIGS: configs.alter_incrementally,
        }

    def _update_congestion(self) -> None:
        """Pause reading from clients while too many bytes wait for the disk."""
        self._hub.set_congested(self._store.pending_bytes >= self._settings.max_unwritten_bytes)

    @property
    def store(self) -> Store:
        """Return the store, which exists after `start`."""
        return self._store

    async def failed(self) -> None:
        """Wait until the server cannot continue and has logged the reason."""
        await self._store.failed.wait()

    async def stop(self) -> None:
        """Stop listening, close all connections, write everything, and unlock the directory."""
        self._listener.close()
        for connection in list(self._hub.connections):
            connection.close()
        for task in self._hub.tasks:
            task.cancel()
        await asyncio.gather(*self._hub.tasks, return_exceptions=True)
        await self._store.close()
        self._lock.release()
        log.info("server.stopped")
