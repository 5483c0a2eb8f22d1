"""Handlers for settings: clients read and change those of topics, and read those of the server."""

from .config_rules import check_configs, rules
from .errors import Code, Refused, StorageFailed
from .requests import Request
from .settings import BrokerSettings
from .store import Store
from .wire import Writer

_TOPIC, _BROKER = 2, 4
_SET, _DELETE = 0, 1
_FROM_TOPIC, _FROM_DEFAULT, _FROM_STATIC = 1, 5, 4

Entry = tuple[str, str, int]  # name, value, source
Found = tuple[int, str | None, int, str, list[Entry]]  # code, message, type, name, entries


class ConfigAdmin:
    """Handler of DescribeConfigs, AlterConfigs and IncrementalAlterConfigs requests."""

    def __init__(self, store: Store, settings: BrokerSettings) -> None:
        self._store = store
        self._settings = settings

    async def describe(self, request: Request) -> bytes:
        """Return the effective values, from the topic or from the defaults."""
        reader, version = request.reader(), request.version
        wanted = reader.array(lambda: (reader.i8(), reader.string(), reader.nullable_array(reader.string)))
        synonyms = reader.boolean() if version >= 1 else False
        found = [self._find(kind, name, names) for kind, name, names in wanted]
        out = Writer().i32(0)

        def write_entry(entry: Entry) -> None:
            name, value, source = entry
            out.string(name).string(value).boolean(source == _FROM_STATIC)
            if version == 0:
                out.boolean(source == _FROM_DEFAULT).boolean(False)
            else:
                out.i8(source).boolean(False)
                out.array([entry] if synonyms else [], lambda each: out.string(each[0]).string(each[1]).i8(each[2]))

        def write(result: Found) -> None:
            code, message, kind, name, entries = result
            out.i16(code).string(message).i8(kind).string(name).array(entries, write_entry)

        return out.array(found, write).done()

    def _find(self, kind: int, name: str, names: list[str] | None) -> Found:
        if kind == _TOPIC:
            topic = self._store.catalog.topics.get(name)
            if topic is None:
                return Code.UNKNOWN_TOPIC_OR_PARTITION, f"{name}: no such topic", kind, name, []
            values = {key: (rule.default, _FROM_DEFAULT) for key, rule in rules(self._settings).items()}
            values |= {key: (value, _FROM_TOPIC) for key, value in topic.configs.items()}
        elif kind == _BROKER and name in ("", str(self._settings.node_id)):
            values = {key: (value, _FROM_STATIC) for key, value in self._server_values().items()}
        else:
            return Code.INVALID_REQUEST, f"resource {name!r} of type {kind} does not exist", kind, name, []
        entries = [(key, *value) for key, value in sorted(values.items()) if names is None or key in names]
        return Code.NONE, None, kind, name, entries

    def _server_values(self) -> dict[str, str]:
        settings = self._settings
        return {
            "auto.create.topics.enable": str(settings.auto_create_topics).lower(),
            "default.replication.factor": "1",
            "log.flush.interval.messages": "1",
            "log.retention.ms": str(settings.retention_ms),
            "message.max.bytes": str(settings.max_message_bytes),
            "min.insync.replicas": "1",
            "num.partitions": str(settings.partitions_default),
            "socket.request.max.bytes": str(settings.max_request_bytes),
        }

    async def alter(self, request: Request) -> bytes:
        """Replace all settings of topics."""
        reader = request.reader()

        def read() -> tuple[int, str, dict[str, str | None]]:
            kind, name = reader.i8(), reader.string()
            return kind, name, dict(reader.array(lambda: (reader.string(), reader.nullable_string())))

        wanted = reader.array(read)
        dry = reader.boolean()
        return self._answer([(*await self._set(kind, name, values, dry), kind, name) for kind, name, values in wanted])

    async def alter_incrementally(self, request: Request) -> bytes:
        """Set or remove single settings of topics."""
        reader = request.reader()

        def read() -> tuple[int, str, list[tuple[str, int, str | None]]]:
            kind, name = reader.i8(), reader.string()
            return kind, name, reader.array(lambda: (reader.string(), reader.i8(), reader.nullable_string()))

        wanted = reader.array(read)
        dry = reader.boolean()
        results: list[tuple[int, str | None, int, str]] = []
        for kind, name, changes in wanted:
            topic = self._store.catalog.topics.get(name)
            values: dict[str, str | None] = dict(topic.configs) if topic is not None and kind == _TOPIC else {}
            odd = [change for _, change, _ in changes if change not in (_SET, _DELETE)]
            values |= {key: value if change == _SET else None for key, change, value in changes}
            if odd:
                results.append((Code.INVALID_REQUEST, "the only operations are SET and DELETE", kind, name))
            else:
                results.append((*await self._set(kind, name, values, dry), kind, name))
        return self._answer(results)

    async def _set(self, kind: int, name: str, values: dict[str, str | None], dry: bool) -> tuple[int, str | None]:
        topic = self._store.catalog.topics.get(name)
        if kind != _TOPIC:
            return Code.INVALID_REQUEST, "settings of the server can only be given at its start"
        if topic is None:
            return Code.UNKNOWN_TOPIC_OR_PARTITION, f"{name}: no such topic"
        try:
            accepted = check_configs(name, values, self._settings)
            if not dry:
                await self._store.journal({"op": "configs_set", "uid": topic.uid, "configs": accepted})
        except Refused as refused:
            return refused.code, refused.message
        except StorageFailed as failure:
            return Code.KAFKA_STORAGE_ERROR, str(failure)
        return Code.NONE, None

    @staticmethod
    def _answer(results: list[tuple[int, str | None, int, str]]) -> bytes:
        out = Writer().i32(0)
        return out.array(results, lambda r: out.i16(r[0]).string(r[1]).i8(r[2]).string(r[3])).done()
