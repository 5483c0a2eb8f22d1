"""Tree of named faults: each class carries a stable code, an HTTP status, and whether a retry can help."""

from typing import ClassVar


class AgentlogError(Exception):
    """Base of all faults; the message names the thing, the expected value and the value found."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    retriable: ClassVar[bool] = False


class Unavailable(AgentlogError):
    """A dependency (log, database, queue, projection) does not answer now; nothing was written."""

    code = "unavailable"
    status = 503
    retriable = True


class DependencyRefused(Unavailable):
    """A dependency answers and refuses a command that it should serve: a setting or a permission is wrong.

    A retry does not help until an operator has acted; no other process finds the dependency away.
    """

    code = "dependency_refused"


class OutcomeUnknown(Unavailable):
    """The record was handed to the log, but no verdict came in time; retry with the same Idempotency-Key."""

    code = "outcome_unknown"
    status = 504


class BlobMissing(Unavailable):
    """An event names a large value that is not on `blobs`, or not as it was written.

    Such a record stops its partition until the blob is there: a verdict depends on the log of the aggregate only, never
    on the moment at which a blob arrives.
    """

    code = "blob_missing"


class Quarantined(Unavailable):
    """A read model of this aggregate is in quarantine after a deterministic error; an operator must act."""

    code = "quarantined"


class Contended(Unavailable):
    """The command lost every race for the version of the aggregate; none of its commits was accepted."""

    code = "contended"


class Conflict(AgentlogError):
    """The state of the aggregate does not allow the request."""

    code = "conflict"
    status = 409


class KeyReused(Conflict):
    """The Idempotency-Key was used before with another request body."""

    code = "idempotency_key_reused"
    status = 422


class Corrupt(AgentlogError):
    """Stored bytes are damaged or cannot be decoded.

    Such a record of `events` is void, `unreadable`, and the projector continues after it.
    """

    code = "corrupt"


class UnknownSchema(Corrupt):
    """A commit carries a spec, rules version, fact type or schema that this release does not know.

    Such a record stops its partition, until a projector of a newer release continues it.
    """

    code = "unknown_schema"


class Diverged(Corrupt):
    """The log is not the log that was folded before; an operator has to rebuild the projection."""

    code = "log_diverged"
    status = 503


class Misconfigured(AgentlogError):
    """A setting would break a guarantee; the message names the setting, the value found and the value needed."""

    code = "misconfigured"


class SlowReader(AgentlogError):
    """A reader of a live tail fell behind its bounded buffer; it must continue from the log."""

    code = "slow_reader"
    retriable = True


class Gap(AgentlogError):
    """Part of the requested range has expired; `available_from` is the oldest position that is left."""

    code = "gap"
    status = 410

    def __init__(self, message: str, available_from: int) -> None:
        super().__init__(message)
        self.available_from = available_from
