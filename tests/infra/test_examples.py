"""Tests of the example graphs, without a model and without a server."""

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentlog_infra.examples import example_agent, example_chat, example_steps, example_trivial

THREAD: RunnableConfig = {"configurable": {"thread_id": "a thread"}}


def question(text: str) -> Any:
    """Return the input with this text, in the form of a client."""
    return {"messages": [{"role": "user", "content": text}]}


async def texts_after(decision: dict[str, object]) -> list[str]:
    """Run the agent up to a payment, decide, and return the texts of all messages."""
    graph = example_agent.builder.compile(checkpointer=InMemorySaver())
    waiting = await graph.ainvoke(question("Pay 25 EUR to Ana"), THREAD)
    assert waiting["__interrupt__"][0].value["action_requests"][0]["args"] == {"amount": 25, "to": "Ana"}
    done: dict[str, list[BaseMessage]] = await graph.ainvoke(Command(resume={"decisions": [decision]}), THREAD)
    return [str(message.text) for message in done["messages"]]


async def test_the_agent_pays_once_a_human_approved() -> None:
    assert (await texts_after({"type": "approve"}))[2:] == [
        "paid 25 EUR to Ana",
        "That is settled: paid 25 EUR to Ana.",
    ]


async def test_the_agent_pays_what_the_human_changed_it_to() -> None:
    edited = {"name": "pay", "args": {"amount": 5, "to": "Bo"}}
    assert (await texts_after({"type": "edit", "edited_action": edited}))[2] == "paid 5 EUR to Bo"


async def test_the_agent_does_not_pay_what_the_human_declined() -> None:
    assert (await texts_after({"type": "reject", "message": "too much"}))[2:] == [
        "too much",
        "That is settled: too much.",
    ]


async def test_the_chat_streams_one_token_for_each_number() -> None:
    tokens: list[str] = []
    async for chunk, _ in example_chat.graph.astream(question("Count to 100"), stream_mode="messages"):
        assert isinstance(chunk, AIMessageChunk)
        tokens.append(str(chunk.text))
    assert [token.strip() for token in tokens if token] == [str(number) for number in range(1, 101)]


async def test_the_chat_streams_the_words_that_it_keeps() -> None:
    streamed = ""
    async for chunk, _ in example_chat.graph.astream(question("hello"), stream_mode="messages"):
        assert isinstance(chunk, AIMessageChunk)
        streamed += str(chunk.text)
    kept = await example_chat.graph.ainvoke(question("hello"))
    assert streamed == kept["messages"][-1].text


async def test_the_trivial_graph_says_the_question_again() -> None:
    answer = await example_trivial.graph.ainvoke(question("hello"))
    assert answer["messages"][-1].text == "hello"


async def test_each_step_leaves_a_start_and_an_end_in_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTLOG_EXAMPLE_TRACE", str(tmp_path / "trace"))
    done = await example_steps.graph.ainvoke({"name": "seen", "grow_bytes": 7})
    lines = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert [(line["name"], line["step"], line["edge"]) for line in lines] == [
        ("seen", step, edge) for step in example_steps.STEPS for edge in ("start", "end")
    ]
    assert done["done"] == list(example_steps.STEPS)
    assert [len(padding) for padding in done["padding"]] == [7] * 5


async def test_a_step_holds_until_its_gate_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLOG_EXAMPLE_GATES", str(tmp_path))
    ended: list[str] = []
    async for update in example_steps.graph.astream({"hold": {"three": "gate"}}, stream_mode="updates"):
        ended.extend(update)
        if ended == ["one", "two"]:
            (tmp_path / "gate").touch()
    assert ended == list(example_steps.STEPS)


async def test_a_client_cannot_name_a_gate_outside_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLOG_EXAMPLE_GATES", str(tmp_path))
    with pytest.raises(ValueError, match="plain name"):
        await example_steps.graph.ainvoke({"hold": {"one": "../gate"}})


async def test_a_step_fails_where_it_is_told_to() -> None:
    with pytest.raises(RuntimeError, match="step two was told to fail"):
        await example_steps.graph.ainvoke({"fail_at": "two"})
