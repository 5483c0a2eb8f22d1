"""The smallest graph: one node that answers every message with its own words, without a model."""

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from agentlog_infra.examples.message_text import last_question


async def echo(state: MessagesState) -> dict[str, list[AIMessage]]:
    """Repeat the last question."""
    return {"messages": [AIMessage(content=last_question(state["messages"]))]}


builder = StateGraph(MessagesState)
builder.add_node("echo", echo)
builder.add_edge(START, "echo")
builder.add_edge("echo", END)
graph = builder.compile()
