"""Parser of server-sent events, by hand, so that ids and order are exactly those that the server sent."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import aiohttp
from tests.system.api import TIMEOUT

from agentlog_facts.json_value import JsonObject, dump


@dataclass(frozen=True, slots=True)
class Event:
    """One event: id ("" if it has none), name and the raw text of its data."""

    id: str
    event: str
    data: str


async def events(
    url: str, body: JsonObject | None = None, last_event_id: str | None = None, opened: asyncio.Event | None = None
) -> AsyncGenerator[Event]:
    """POST a body, or GET without one, and yield events until the server closes; comments are left out.

    `opened` is set when the server has answered.
    """
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    method = "GET" if body is None else "POST"
    data = None if body is None else dump(body)
    async with aiohttp.ClientSession(timeout=TIMEOUT, read_bufsize=2**22) as session:
        async with session.request(method, url, data=data, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            if opened is not None:
                opened.set()
            fields: dict[str, str] = {}
            async for line in answer.content:
                text = line.decode()
                assert text.endswith("\r\n"), f"not CRLF: {text!r}"
                if text == "\r\n":
                    if fields:
                        yield Event(fields.get("id", ""), fields["event"], fields["data"])
                    fields = {}
                elif not text.startswith(":"):
                    name, _, value = text.removesuffix("\r\n").partition(": ")
                    fields[name] = value
