"""Texts of tool errors that clients must not see. Source: docs/http-api.md, section 10.6.

LangGraph's stream mode `tools` tells the text of an error without its class, so a callback handler notes the classes.
"""

from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from agentlog_infra.langgraph.errors import MASK, error_json


class ToolErrors(BaseCallbackHandler):
    """Callback handler that collects the texts of the errors of a run whose class masks them."""

    run_inline = True
    """LangChain calls it before the handler of the stream, in the same thread."""

    def __init__(self) -> None:
        self._masked: set[str] = set()

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Note an error before LangGraph streams its text."""
        if error_json(error)["message"] == MASK:
            self._masked.add(str(error))

    def shown(self, text: str) -> str:
        """Return the text of an error as clients may see it."""
        return MASK if text in self._masked else text
