"""Errors: Kafka's error codes, and the exceptions that stop the server or one request."""

from pathlib import Path


class Code:
    """Kafka error codes in the responses of this server. Source: Kafka protocol guide, "Error Codes"."""

    NONE = 0
    UNKNOWN_SERVER_ERROR = -1
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    MESSAGE_TOO_LARGE = 10
    OFFSET_METADATA_TOO_LARGE = 12
    INVALID_TOPIC = 17
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    INVALID_GROUP_ID = 24
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    UNSUPPORTED_SASL_MECHANISM = 33
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    INVALID_CONFIG = 40
    INVALID_REQUEST = 42
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
    POLICY_VIOLATION = 44
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    DUPLICATE_SEQUENCE_NUMBER = 46
    INVALID_PRODUCER_EPOCH = 47
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    KAFKA_STORAGE_ERROR = 56
    SASL_AUTHENTICATION_FAILED = 58
    FETCH_SESSION_ID_NOT_FOUND = 70
    TOPIC_DELETION_DISABLED = 73
    FENCED_INSTANCE_ID = 82
    INVALID_RECORD = 87


class BrokerError(Exception):
    """Base of all errors that this server raises."""


class Misconfigured(BrokerError):
    """The server cannot honour a setting and does not start."""


class DirectoryInUse(BrokerError):
    """Another process holds the data directory."""

    def __init__(self, directory: Path, owner: str) -> None:
        super().__init__(f"{directory}: in use by process {owner}; one server per data directory")


class Damaged(BrokerError):
    """Stored bytes differ from the written ones; they are never served and never skipped."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(f"{path}: damaged at byte {offset}: {reason}")
        self.path = path
        self.offset = offset


class StorageFailed(BrokerError):
    """The disk failed a write; no part of the request is acknowledged."""


class MalformedRequest(BrokerError):
    """The bytes are not a request of the protocol; the connection is closed."""


class Refused(BrokerError):
    """The server understands the request and refuses it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
