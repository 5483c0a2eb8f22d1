"""Which errors of user code show their message to clients. Source: docs/http-api.md, section 10.6."""

from typing import TypeGuard

from langgraph import errors
from starlette.exceptions import HTTPException

from agentlog_facts.json_value import JsonObject
from agentlog_infra.langgraph.value_json import clean_text

SHOWN: tuple[type[BaseException], ...] = (
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    AttributeError,
    TimeoutError,
    HTTPException,
    errors.InvalidUpdateError,
    errors.EmptyInputError,
    errors.GraphRecursionError,
    errors.TaskNotFound,
)
MASK = "An internal error occurred"


def error_json(error: BaseException) -> JsonObject:
    """Return {error: class name, message}; the message of any other class than SHOWN is masked."""
    if _is_group(error) and len(error.exceptions) == 1:
        return error_json(error.exceptions[0])
    message = clean_text(str(error)) if isinstance(error, SHOWN) else MASK
    return {"error": type(error).__name__, "message": message}


def _is_group(error: BaseException) -> TypeGuard[BaseExceptionGroup[BaseException]]:
    return isinstance(error, BaseExceptionGroup)
