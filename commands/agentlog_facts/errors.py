"""The tree of named faults: each class carries a stable code, an HTTP status and whether a retry can help."""

from typing import ClassVar


class AgentlogError(Exception):
    """Something that agentlog could not do; the message names the thing, what was expected and what was found."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    retriable: ClassVar[bool] = False


class Unavailable(AgentlogError):
    """A dependency (log, database, queue, projection) does not answer now; nothing was written."""

    code = "unavailable"
    status = 503
    retriable = True


class OutcomeUnknown(Unavailable):
    """The log got the record, but no verdict came in time; retry with the same Idempotency-Key."""

    code = "outcome_unknown"
    status = 504


class Quarantined(Unavailable):
    """A read model of this aggregate is parked after a deterministic error; an operator has to look."""

    code = "quarantined"


class Contended(Unavailable):
    """Others wrote to the aggregate each time before this could; nothing was written."""

    code = "contended"


class Conflict(AgentlogError):
    """The state of the aggregate does not allow what was asked."""

    code = "conflict"
    status = 409


class KeyReused(Conflict):
    """The Idempotency-Key was used before with another request body."""

    code = "idempotency_key_reused"
    status = 422


class Corrupt(AgentlogError):
    """Stored bytes are not what was written; nothing may be folded past them."""

    code = "corrupt"


class UnknownSchema(Corrupt):
    """A commit carries a spec, rules version, fact type or schema that this release does not know."""

    code = "unknown_schema"


class Diverged(Corrupt):
    """The log is not the one that was folded before; only an operator's rebuild mends that."""

    code = "log_diverged"
    status = 503


class Misconfigured(AgentlogError):
    """A setting would break a promise; the message names the setting, the value found and the value needed."""

    code = "misconfigured"


class SlowReader(AgentlogError):
    """A reader of a live tail fell behind its bounded buffer; it has to read on from the log."""

    code = "slow_reader"
    retriable = True


class Gap(AgentlogError):
    """Part of the range that was asked for has expired; `available_from` is the oldest position still there."""

    code = "gap"
    status = 410

    def __init__(self, message: str, available_from: int) -> None:
        super().__init__(message)
        self.available_from = available_from
