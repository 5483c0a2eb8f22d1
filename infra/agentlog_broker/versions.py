"""Supported requests and their versions: those that aiokafka, librdkafka and Faust send."""

from .errors import Code
from .requests import Request
from .wire import Writer

PRODUCE = 0
FETCH = 1
LIST_OFFSETS = 2
METADATA = 3
OFFSET_COMMIT = 8
OFFSET_FETCH = 9
FIND_COORDINATOR = 10
JOIN_GROUP = 11
HEARTBEAT = 12
LEAVE_GROUP = 13
SYNC_GROUP = 14
DESCRIBE_GROUPS = 15
LIST_GROUPS = 16
SASL_HANDSHAKE = 17
API_VERSIONS = 18
CREATE_TOPICS = 19
DELETE_TOPICS = 20
DELETE_RECORDS = 21
INIT_PRODUCER_ID = 22
DESCRIBE_CONFIGS = 32
ALTER_CONFIGS = 33
SASL_AUTHENTICATE = 36
CREATE_PARTITIONS = 37
INCREMENTAL_ALTER_CONFIGS = 44

# Only versions before the "flexible" encoding.
SUPPORTED: dict[int, tuple[int, int]] = {
    PRODUCE: (3, 7),
    FETCH: (4, 11),
    LIST_OFFSETS: (1, 3),
    METADATA: (0, 5),
    OFFSET_COMMIT: (2, 3),
    OFFSET_FETCH: (1, 3),
    FIND_COORDINATOR: (0, 1),
    JOIN_GROUP: (0, 5),
    HEARTBEAT: (0, 1),
    LEAVE_GROUP: (0, 1),
    SYNC_GROUP: (0, 3),
    DESCRIBE_GROUPS: (0, 2),
    LIST_GROUPS: (0, 1),
    API_VERSIONS: (0, 2),
    CREATE_TOPICS: (0, 3),
    DELETE_TOPICS: (0, 3),
    DELETE_RECORDS: (0, 1),
    INIT_PRODUCER_ID: (0, 0),
    DESCRIBE_CONFIGS: (0, 2),
    ALTER_CONFIGS: (0, 1),
    CREATE_PARTITIONS: (0, 1),
    INCREMENTAL_ALTER_CONFIGS: (0, 0),
}
LOGIN: dict[int, tuple[int, int]] = {SASL_HANDSHAKE: (1, 1), SASL_AUTHENTICATE: (0, 1)}
"""Requests of a login, on a server that demands one."""


def is_supported(api_key: int, version: int) -> bool:
    """Return whether the server supports a request in this version."""
    bounds = SUPPORTED.get(api_key) or LOGIN.get(api_key)
    return bounds is not None and bounds[0] <= version <= bounds[1]


def api_versions(request: Request, *, login: bool = False) -> bytes:
    """Return the supported versions; a newer request gets the oldest form of the response, and the client retries."""
    known = is_supported(API_VERSIONS, request.version)
    out = Writer().i16(Code.NONE if known else Code.UNSUPPORTED_VERSION)
    shown = SUPPORTED | LOGIN if login else SUPPORTED
    out.array(list(shown.items()), lambda item: out.i16(item[0]).i16(item[1][0]).i16(item[1][1]))
    return out.i32(0).done() if known and request.version >= 1 else out.done()
