"""Framing of server-sent events, and their response when its client disconnects."""

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import pytest
from starlette.types import Message

from agentlog_facts.frame import SLOTS, Frame, FrameRecord, encode_record
from agentlog_facts.ids import RunId
from agentlog_facts.ports import PositionedFrames
from agentlog_gateway.streaming.cursor import After, FromStart, LiveOnly, begin
from agentlog_gateway.streaming.sse import Framer, frame
from agentlog_gateway.streaming.sse_response import SseResponse
from agentlog_gateway.streaming.stream_modes import stream_modes
from agentlog_infra.kafka.outputs.records import Stored, decoded


class Endless:
    """Events without end until closed, or `count` of them."""

    def __init__(self, count: int | None = None) -> None:
        self.ended = False
        self.closed = asyncio.Event()
        self._count = count
        self._chunks = self._run()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self.closed.set()

    async def aclose(self) -> None:
        self.close()
        await self._chunks.aclose()

    async def _run(self) -> AsyncGenerator[bytes]:
        for number in range(self._count or 1):
            yield b"%d" % number
        if self._count is None:
            await self.closed.wait()
        else:
            self.ended = True


class Connection:
    """The server's side of one request, as ASGI sees it."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.leave = asyncio.Event()

    async def receive(self) -> Message:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def test_an_event_is_framed_as_the_contract_says() -> None:
    text = frame("values|child:1", {"text": "line\r\nnext", "x": "é"}, 5 * SLOTS + 8)
    assert text == 'event: values|child:1\r\ndata: {"text":"line\\r\\nnext","x":"é"}\r\nid: 5-8\r\n\r\n'.encode()
    assert frame("metadata", {"attempt": 1}) == b'event: metadata\r\ndata: {"attempt":1}\r\n\r\n'


def test_an_event_name_cannot_break_out_of_its_line() -> None:
    assert frame("updates|a\r\ndata: forged", None).count(b"\r\n") == 3


def test_the_same_bytes_serve_every_reader_while_they_are_recent() -> None:
    framer = Framer(cache_bytes=3_000)
    flushes = [
        PositionedFrames(0, at, at * SLOTS, FrameRecord(RunId("r"), 1, at, (Frame("values", "x" * 100),)))
        for at in range(4)
    ]
    first = framer.framed(flushes[0], True)
    assert framer.framed(flushes[0], True) is first
    assert framer.framed(flushes[0], False).joined != first.joined
    for flush in flushes[1:]:
        framer.framed(flush, True)
    assert framer.framed(flushes[0], True) is not first
    assert framer.framed(flushes[0], True) == first


def test_the_cache_takes_no_more_memory_than_it_may() -> None:
    room = 2_000_000
    framer = Framer(cache_bytes=room)
    frames = [(Frame("values", "x" * 40),), (Frame("messages", "x" * 400),), (Frame("custom", 1),) * 30]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for at in range(6_000):
            run_id = RunId(f"run-{at}-of-many-runs-with-ids-of-36-bytes")
            framer.framed(PositionedFrames(0, at, at * SLOTS, FrameRecord(run_id, 1, at, frames[at % 3])), True)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert room / 4 < taken < room * 1.2


def at_the_same_place(run_id: str, text: str) -> PositionedFrames:
    """Return a flush in the form in which it is read from a log."""
    value, headers = encode_record(FrameRecord(RunId(run_id), 1, 0, (Frame("values", text),)))
    return decoded(Stored(7, b"t", value, headers), 0, 0, value)


def test_what_lies_at_the_same_place_of_a_restored_log_is_not_taken_for_what_lay_there_before() -> None:
    framer = Framer()
    lost = framer.framed(at_the_same_place("r1", "somebody's secret"), True)
    assert b"secret" not in framer.framed(at_the_same_place("r2", "mine"), True).joined
    assert b"secret" not in framer.framed(at_the_same_place("r1", "run again"), True).joined
    assert framer.framed(at_the_same_place("r1", "somebody's secret"), True) is lost


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, LiveOnly()),
        ("0", FromStart()),
        ("-", FromStart()),
        ("-1", FromStart()),
        ("12-16", After(12 * SLOTS + 16)),
        ("12", LiveOnly()),
        ("12-99999", LiveOnly()),
        ("", LiveOnly()),
    ],
)
def test_a_cursor_is_a_start_a_position_or_nothing(text: str | None, expected: object) -> None:
    assert begin(text) == expected


def test_a_filter_comes_repeated_with_commas_or_as_json() -> None:
    forms = [["values", "custom"], ["values,custom"], ['["values","custom"]'], ["values, custom", ""]]
    assert len({stream_modes(form) for form in forms}) == 1
    assert stream_modes([]) is stream_modes([""]) is None


def test_a_filter_passes_its_modes_and_what_ends_or_breaks_a_stream_and_nothing_else() -> None:
    modes = stream_modes(["messages-tuple"])
    assert modes is not None
    kinds = ("messages", "values", "metadata", "error", "gap")
    assert [kind for kind in kinds if modes.wants(kind)] == ["messages", "error", "gap"]


async def _answer(
    events: Endless, connection: Connection, on_gone: Callable[[], Awaitable[None]] | None = None
) -> SseResponse[bytes]:
    response = SseResponse(events, bytes, {"Location": "/there"}, on_gone)
    async with asyncio.timeout(10):
        await response({"type": "http"}, connection.receive, connection.send)
    return response


async def test_a_response_sends_its_headers_first_and_closes_its_events_at_the_end() -> None:
    events, connection = Endless(3), Connection()
    await _answer(events, connection)
    headers = dict(connection.sent[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert headers[b"location"] == b"/there"
    assert headers[b"cache-control"] == b"no-store"
    assert b"content-length" not in headers
    assert connection.body == b"012"
    assert connection.sent[-1]["more_body"] is False
    assert events.closed.is_set()


async def test_a_client_that_leaves_early_is_noticed_and_one_that_leaves_at_the_end_is_not() -> None:
    gone: list[str] = []

    async def on_gone() -> None:
        gone.append("gone")

    early = Connection()
    early.leave.set()
    events = Endless()
    await _answer(events, early, on_gone)
    assert gone == ["gone"]
    assert events.closed.is_set()
    await _answer(Endless(2), Connection(), on_gone)
    assert gone == ["gone"]


async def test_a_server_that_stops_cancels_no_run() -> None:
    gone: list[str] = []

    async def on_gone() -> None:
        gone.append("gone")

    events = Endless()
    answering = asyncio.ensure_future(_answer(events, Connection(), on_gone))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answering.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await answering
    assert gone == []
    assert events.closed.is_set()
