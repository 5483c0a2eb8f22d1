"""Tests of the log line for each request."""

import logging

import pytest
from starlette.types import Message, Receive, Scope, Send

from agentlog_gateway.http.request_log import RequestLog

LOGGER = "agentlog.requests"


async def answering(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise ValueError("broken")


async def silent(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """The client has left: there is nobody to answer."""


async def receive() -> Message:
    return {"type": "http.disconnect"}


def scope(path: str = "/threads/x") -> Scope:
    return {"type": "http", "method": "GET", "path": path}


async def call(app: RequestLog, at: Scope) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(at, receive, send)
    return sent


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[object, object, object]]:
    found = [vars(record) for record in caplog.records if record.getMessage() == "request.answered"]
    return [(each["method"], each["path"], each["status"]) for each in found]


async def test_an_answered_request_has_one_line_and_passes_through(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    sent = await call(RequestLog(answering), scope())
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert lines(caplog) == [("GET", "/threads/x", 404)]


async def test_a_failed_request_is_a_500_and_its_error_passes_through(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    with pytest.raises(ValueError, match="broken"):
        await call(RequestLog(failing), scope())
    assert lines(caplog) == [("GET", "/threads/x", 500)]


async def test_a_request_whose_client_left_has_no_status(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    await call(RequestLog(silent), scope())
    assert lines(caplog) == [("GET", "/threads/x", "no response")]


async def test_a_path_writes_no_control_characters_to_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    await call(RequestLog(answering), scope("/threads/\x1b[2J\n"))
    assert lines(caplog) == [("GET", "/threads/%1B%5B2J%0A", 404)]


async def test_without_a_terminal_requests_have_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    await call(RequestLog(answering), scope())
    assert lines(caplog) == []
