"""JSON of errors of user code, with a mask for messages that clients must not see.

Source: docs/http-api.md, section 10.6.
"""

import asyncio
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeGuard

from langgraph import errors
from starlette.exceptions import HTTPException

from agentlog_facts.errors import AgentlogError, Misconfigured
from agentlog_facts.graph_ports import GraphFailed
from agentlog_facts.json_value import JsonObject
from agentlog_facts.secret_values import SecretUnreadable
from agentlog_infra.langgraph.value_json import clean_text, text_by

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
    errors.UnknownInterruptError,
    Misconfigured,
    SecretUnreadable,
)
EXITS = (SystemExit, KeyboardInterrupt)
"""Exceptions that would end a program; in the code of a graph they are errors of its run."""
MASK = "An internal error occurred"
UNNAMED = "Exception"
"""Name of a stored error whose text does not begin with a class name."""
_CLASS_NAME = re.compile(r"[^\W\d]\w*(?=\()")


def error_json(error: BaseException) -> JsonObject:
    """Return {error: class name, message}. Only errors of the classes in SHOWN and EXITS keep their message."""
    if _is_group(error) and len(error.exceptions) == 1:
        return error_json(error.exceptions[0])
    if isinstance(error, EXITS):
        return {"error": type(error).__name__, "message": clean_text(f"the code of the graph raised {error!r}")}
    shown = text_by(error, str) if isinstance(error, SHOWN) else None
    return {"error": clean_text(type(error).__name__), "message": MASK if shown is None else shown}


def stored_error_json(text: str) -> JsonObject:
    """Return {error: class name, message: MASK} of an error that a saver keeps as its `repr`: that proves no class."""
    name = _CLASS_NAME.match(text)
    return {"error": UNNAMED if name is None else clean_text(name[0]), "message": MASK}


@contextmanager
def code_failures(graph_id: str, meanwhile: str) -> Generator[None]:
    """Turn any error of a graph's code into GraphFailed, also a cancellation that nobody asked for.

    `meanwhile` is a clause that says what was done. Raises: GraphFailed, and errors of ours as they are.
    """
    try:
        yield
    except Misconfigured as error:
        raise GraphFailed(str(error)) from error
    except AgentlogError:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise _failed(graph_id, meanwhile, error) from error
    except (Exception, *EXITS) as error:
        raise _failed(graph_id, meanwhile, error) from error


def _failed(graph_id: str, meanwhile: str, error: BaseException) -> GraphFailed:
    shown = error_json(error)
    reason = "" if shown["message"] in ("", MASK) else f": {shown['message']}"
    return GraphFailed(f"graph {graph_id}: its code raised {shown['error']} while {meanwhile}{reason}")


def _is_group(error: BaseException) -> TypeGuard[BaseExceptionGroup[BaseException]]:
    return isinstance(error, BaseExceptionGroup)
