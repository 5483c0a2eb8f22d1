"""Five nodes that hand a conversation on: each run adds a question, an answer, and five entries of a list."""

import operator
from typing import Annotated

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

NODES = ("read", "plan", "search", "check", "answer")


class Conversation(MessagesState):
    """State of the conversation: messages, and the nodes that ran."""

    ran: Annotated[list[str], operator.add]


async def note(name: str, state: Conversation) -> dict[str, object]:
    """Note that a node ran; the last one also answers the last message."""
    if name != NODES[-1]:
        return {"ran": [name]}
    return {"ran": [name], "messages": [AIMessage(content=f"You said: {state['messages'][-1].content}")]}


builder = StateGraph(Conversation)
for number, node in enumerate(NODES):

    async def run(state: Conversation, name: str = node) -> dict[str, object]:
        return await note(name, state)

    builder.add_node(node, run)
    builder.add_edge(NODES[number - 1] if number else START, node)
builder.add_edge(NODES[-1], END)
graph = builder.compile()
