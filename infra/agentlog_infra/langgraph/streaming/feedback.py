"""Frame with the URLs at which clients may give feedback on a run, from LangSmith.

LangSmith is asked only for runs with `feedback_keys`, and only if the environment has a key for it. Without the URLs,
the stream ends with an error event; the run has succeeded all the same. Source: docs/http-api.md, section 7.1.
"""

import asyncio
import os
from collections.abc import Sequence

from agentlog_facts.frame import Frame
from agentlog_facts.ids import RunId
from agentlog_facts.json_value import JsonObject
from agentlog_infra import timeouts
from agentlog_infra.langgraph.errors import error_json

API_KEYS = ("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY")
ENDPOINTS = ("LANGSMITH_ENDPOINT", "LANGCHAIN_ENDPOINT")


class FeedbackUnavailable(RuntimeError):
    """LangSmith gives no URLs for feedback."""


async def feedback_frames(run_id: RunId, kwargs: JsonObject) -> list[Frame]:
    """Return the last frame of a run with `feedback_keys`, none for other runs."""
    keys = kwargs.get("feedback_keys")
    if not isinstance(keys, list) or not keys:
        return []
    try:
        async with asyncio.timeout(timeouts.LANGSMITH_S):
            urls = await asyncio.to_thread(_urls, run_id, [str(key) for key in keys])
    except Exception as error:  # noqa: BLE001 - the client of LangSmith may raise anything; the run has ended well
        return [Frame("error", error_json(error))]
    return [Frame("feedback", urls)]


def _urls(run_id: RunId, keys: Sequence[str]) -> JsonObject:
    """Return {key: URL}. Raises: FeedbackUnavailable, and any error of LangSmith's client."""
    api_key = _first_of(API_KEYS)
    if api_key is None:
        raise FeedbackUnavailable("feedback_keys needs LangSmith, but LANGSMITH_API_KEY is not set")
    from langsmith import Client  # here, because the import takes long and most servers never need it

    client = Client(api_url=_first_of(ENDPOINTS), api_key=api_key)
    tokens = client.create_presigned_feedback_tokens(run_id, keys)
    return {key: token.url for key, token in zip(keys, tokens, strict=True)}


def _first_of(names: Sequence[str]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)
