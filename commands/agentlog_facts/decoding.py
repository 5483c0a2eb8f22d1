"""Guard around the decoding of stored bytes: they become a value, or the error is Corrupt; no other error leaves it."""

from collections.abc import Generator
from contextlib import contextmanager

from agentlog_facts.errors import Corrupt

MOST_REASON = 200
"""Characters of a reason: it may quote the stored bytes."""
MOST_NAMES = 600
"""Characters of all names of a commit: more than our writers use, and few enough for an index."""


def key_text(key: bytes | None) -> str:
    """Return the key of any record as the ledger stores it."""
    return (key or b"").decode("utf-8", "backslashreplace").replace("\x00", "\\x00")[:MOST_NAMES]


@contextmanager
def guarded(what: str) -> Generator[None]:
    """Translate every error that foreign bytes can cause while they are decoded; `what` names the bytes.

    Raises: Corrupt, and as they are all named faults (`AgentlogError`), such as UnknownSchema.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise Corrupt(f"{what}: {str(error)[:MOST_REASON]}") from error
