"""A chat that streams its tokens: it counts on request ("count to 100"), else it repeats the question."""

import re
from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph

from agentlog_infra.examples.message_text import last_question
from agentlog_infra.examples.scripted_model import ScriptedChatModel

MOST_NUMBERS = 10_000


def answer(messages: Sequence[BaseMessage]) -> AIMessage:
    """Count, or repeat the question and the number of questions before it."""
    question = last_question(messages)
    count = re.search(r"count to (\d{1,5})", question, re.IGNORECASE)
    if count:
        return AIMessage(content=" ".join(str(n) for n in range(1, min(int(count[1]), MOST_NUMBERS) + 1)))
    before = sum(isinstance(message, HumanMessage) for message in messages) - 1
    return AIMessage(content=f"You said: {question} Before that you sent {before} messages.")


async def reply(state: MessagesState, config: RunnableConfig) -> dict[str, list[BaseMessage]]:
    """Call the scripted model; `configurable.pause_ms` slows its tokens down."""
    pause_ms = float(config.get("configurable", {}).get("pause_ms", 0))
    model = ScriptedChatModel(rule=answer, pause_ms=pause_ms)
    return {"messages": [await model.ainvoke(state["messages"], config)]}


builder = StateGraph(MessagesState)
builder.add_node("reply", reply)
builder.add_edge(START, "reply")
builder.add_edge("reply", END)
graph = builder.compile()
