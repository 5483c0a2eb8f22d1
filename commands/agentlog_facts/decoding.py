"""Guard around the decoding of stored bytes: they become a value, or the error is Corrupt; no other error leaves it."""

from collections.abc import Generator
from contextlib import contextmanager

from agentlog_facts.errors import Corrupt

MOST_REASON = 200
"""Characters of a reason: it may quote the stored bytes."""


@contextmanager
def guarded(what: str) -> Generator[None]:
    """Translate every error that foreign bytes can cause while they are decoded; `what` names the bytes.

    Raises: Corrupt, and as they are all named faults (`AgentlogError`), such as UnknownSchema.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise Corrupt(f"{what}: {str(error)[:MOST_REASON]}") from error
