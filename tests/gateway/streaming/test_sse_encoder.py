"""Encoding of typed stream events as server-sent events."""

import pytest

from agentlog_facts.frame import SLOTS, Frame, FrameRecord
from agentlog_facts.ids import RunId
from agentlog_facts.ports import PositionedFrames
from agentlog_gateway.streaming.sse import Framer, SseEncoder
from agentlog_gateway.streaming.stream_event import (
    StreamEnd,
    StreamEvent,
    StreamFlush,
    StreamGap,
    StreamHeartbeat,
    StreamNotFound,
)
from agentlog_gateway.streaming.stream_modes import stream_modes

AT = 5 * SLOTS
RECORD = FrameRecord(
    RunId("r"), 1, 0, (Frame("values", 1), Frame("custom", 2, "child:1"), Frame("messages/partial", 3))
)
FLUSH = PositionedFrames(0, 5, AT, RECORD)
VALUES, CUSTOM, MESSAGES = (
    b"event: values\r\ndata: 1\r\nid: 5-0\r\n\r\n",
    b"event: custom|child:1\r\ndata: 2\r\nid: 5-8\r\n\r\n",
    b"event: messages/partial\r\ndata: 3\r\nid: 5-16\r\n\r\n",
)


def encoded(*events: StreamEvent, modes: list[str] | None = None) -> bytes:
    """Return the bytes that a client gets."""
    return SseEncoder(Framer(), stream_modes(modes or [])).encode(events)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (StreamFlush(FLUSH, resumable=True), VALUES + CUSTOM + MESSAGES),
        (StreamHeartbeat(), b": heartbeat\r\n\r\n"),
        (StreamGap(AT, AT + 16), b'event: gap\r\ndata: {"from":"5-0","to":"5-16"}\r\n\r\n'),
        (StreamEnd("success"), b""),
        (
            StreamEnd("error", {"error": "E", "message": "m"}),
            b'event: error\r\ndata: {"error":"E","message":"m"}\r\n\r\n',
        ),
        (
            StreamNotFound(),
            b'event: error\r\ndata: {"error":"HTTPException","message":"404: Run not found"}\r\n\r\n',
        ),
    ],
)
def test_each_event_has_its_bytes(event: StreamEvent, expected: bytes) -> None:
    assert encoded(event) == expected


def test_events_of_a_run_that_is_not_resumable_have_no_ids() -> None:
    assert b"id:" not in encoded(StreamFlush(FLUSH, resumable=False))


def test_events_up_to_the_cursor_of_a_client_are_left_out() -> None:
    assert encoded(StreamFlush(FLUSH, resumable=True, after=AT)) == CUSTOM + MESSAGES
    assert encoded(StreamFlush(FLUSH, resumable=True, after=AT + 16)) == b""


def test_modes_select_events_of_flushes_and_never_gaps_errors_and_heartbeats() -> None:
    asked = ["custom"]
    assert encoded(StreamFlush(FLUSH, resumable=True), modes=asked) == CUSTOM
    assert encoded(StreamFlush(FLUSH, resumable=True, after=AT + 8), modes=asked) == b""
    for event in (StreamHeartbeat(), StreamGap(AT, AT + 8), StreamNotFound(), StreamEnd("error", {})):
        assert encoded(event, modes=asked) == encoded(event) != b""


def test_events_that_are_ready_together_are_sent_together() -> None:
    assert encoded(StreamFlush(FLUSH, resumable=True), StreamHeartbeat(), StreamEnd("success")) == (
        VALUES + CUSTOM + MESSAGES + b": heartbeat\r\n\r\n"
    )


def test_all_clients_of_a_gateway_are_sent_the_same_bytes_of_a_flush() -> None:
    framer = Framer()
    first = SseEncoder(framer).encode([StreamFlush(FLUSH, resumable=True)])
    assert SseEncoder(framer).encode([StreamFlush(FLUSH, resumable=True)]) is first
