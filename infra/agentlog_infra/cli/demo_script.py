"""The script of `agentlog demo`: one complete example through the official SDK, then its facts on the log."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TextIO

from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.schema import Command, Config, ThreadState

QUESTION = "Pay 25 EUR to Ana"
ANSWER = "That is settled: paid 25 EUR to Ana."
APPROVAL: Command = {"resume": {"decisions": [{"type": "approve"}]}}
PACE: Config = {"configurable": {"pause_ms": 20}}

ThreadEvents = Callable[[str], AsyncIterator[str]]
"""Thread id -> the thread's facts as stored on the log, one printable line each."""


class DemoFailed(Exception):
    """The server did not behave like the script; the message names the expected and the found value."""


async def run_demo(url: str, out: TextIO, events: ThreadEvents) -> int:
    """Run the example against the server at `url` and narrate it on `out`; return the exit status, 0 or 1.

    Raises: the errors of the SDK if the server cannot be reached or refuses.
    """
    client = get_client(url=url)
    try:
        await Demo(client, out, events).run()
    except DemoFailed as failure:
        print(f"demo failed: {failure}", file=out)
        return 1
    finally:
        await client.aclose()
    return 0


class Demo:
    """One thread from its creation to its facts; each step prints what it did and checks it."""

    def __init__(self, client: LangGraphClient, out: TextIO, events: ThreadEvents) -> None:
        self._client = client
        self._out = out
        self._events = events
        self._thread_id = ""

    async def run(self) -> None:
        """Run the steps in order. Raises: DemoFailed."""
        await self._create_thread()
        await self._run_until_interrupt()
        await self._approve()
        await self._history()
        await self._facts()

    async def _create_thread(self) -> None:
        thread = await self._client.threads.create(metadata={"from": "demo"})
        self._thread_id = thread["thread_id"]
        self._say(f"1. a new thread: {self._thread_id}")

    async def _run_until_interrupt(self) -> None:
        self._say(f'2. a streamed run: "{QUESTION}"')
        question = {"messages": [{"role": "user", "content": QUESTION}]}
        await self._stream(question=question)
        state = await self._client.threads.get_state(self._thread_id)
        interrupts = [interrupt["value"] for interrupt in state["interrupts"]]
        _expect(len(interrupts) == 1, "one interrupt", interrupts)
        self._say(f"3. it waits for a human: {interrupts[0]['action_requests'][0]}")

    async def _approve(self) -> None:
        self._say("4. the human approves, the run goes on")
        answer = await self._stream(command=APPROVAL)
        _expect(answer == ANSWER, ANSWER, answer)
        thread = await self._client.threads.get(self._thread_id)
        _expect(thread["status"] == "idle", "an idle thread", thread["status"])

    async def _history(self) -> None:
        history = await self._client.threads.get_history(self._thread_id, limit=100)
        self._say(f"5. its history, newest first: {len(history)} checkpoints")
        for state in history:
            self._say(f"     {_checkpoint_line(state)}")
        last = _last_message(history[0]) if history else None
        _expect(last == ANSWER, ANSWER, last)

    async def _facts(self) -> None:
        self._say("6. the thread's facts on the log")
        count = 0
        async for line in self._events(self._thread_id):
            self._say(f"     {line}")
            count += 1
        _expect(count > 0, "facts of this thread on the log", count)
        self._say(f"done: {count} commits of this thread are on the log")

    async def _stream(self, *, question: dict[str, Any] | None = None, command: Command | None = None) -> str:
        """Run the agent, print the model's tokens as they come, and return its text."""
        tokens: list[str] = []
        self._out.write("     ")
        async for part in self._client.runs.stream(
            self._thread_id,
            "agent",
            input=question,
            command=command,
            config=PACE,
            stream_mode=["messages-tuple"],
        ):
            data: Any = part.data  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - a bare dict in the SDK
            _expect(part.event != "error", "a run without an error", data)
            if part.event == "messages":
                tokens.append(_token(data))
                self._out.write(tokens[-1])
                self._out.flush()
        self._say(f"   ({sum(map(bool, tokens))} tokens)")
        return "".join(tokens)

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)


def _token(data: Sequence[Any]) -> str:
    """Return the text of a `messages` event, a pair of message chunk and metadata; none for a tool message."""
    message: Mapping[str, Any] = data[0]
    return str(message["content"]) if message["type"] == "AIMessageChunk" else ""


def _last_message(state: ThreadState) -> object:
    values = state["values"]  # pyright: ignore[reportUnknownVariableType] - a bare dict in the SDK
    return values["messages"][-1]["content"] if isinstance(values, dict) else None


def _checkpoint_line(state: ThreadState) -> str:
    step = (state["metadata"] or {}).get("step")
    after = ", ".join(state["next"]) or "nothing"
    return f"step {step}: {state['checkpoint']['checkpoint_id']}, next {after}"


def _expect(holds: bool, expected: str, found: object) -> None:
    if not holds:
        raise DemoFailed(f"expected {expected}, found {found!r}")
