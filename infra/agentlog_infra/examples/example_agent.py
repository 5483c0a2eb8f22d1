"""A tool-calling agent that may not act alone: a human approves, changes or declines each payment it wants to make."""

import re
from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict

from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

from agentlog_infra.examples.message_text import last_question, text_of
from agentlog_infra.examples.scripted_model import ScriptedChatModel


class Action(TypedDict):
    """A tool call as named in the approval request."""

    name: str
    args: dict[str, object]


class Decision(TypedDict):
    """Decision of the human on one request."""

    type: Literal["approve", "edit", "reject"]
    edited_action: NotRequired[Action]
    message: NotRequired[str]


class Decisions(TypedDict):
    """Input of a resume: one decision for each requested action."""

    decisions: list[Decision]


@tool
def pay(amount: int, to: str) -> str:
    """Pay an amount in euro to somebody."""
    return f"paid {amount} EUR to {to}"


def answer(messages: Sequence[BaseMessage]) -> AIMessage:
    """Answer like a model: report the result of the tool, request a payment, or explain what to ask."""
    last = messages[-1]
    if isinstance(last, ToolMessage):
        return AIMessage(content=f"That is settled: {text_of(last)}.")
    wanted = re.search(r"pay\s+(\d{1,9})\D*?\s+to\s+(\w+)", last_question(messages), re.IGNORECASE)
    if not wanted:
        return AIMessage(content='Tell me what to pay and to whom, like "Pay 25 EUR to Ana".')
    call = ToolCall(name="pay", args={"amount": int(wanted[1]), "to": wanted[2]}, id=f"call-{len(messages)}")
    return AIMessage(content=f"I would pay {wanted[1]} EUR to {wanted[2]}; a human has to agree.", tool_calls=[call])


async def think(state: MessagesState, config: RunnableConfig) -> dict[str, list[BaseMessage]]:
    """Call the scripted model; `configurable.pause_ms` slows its tokens down."""
    pause_ms = float(config.get("configurable", {}).get("pause_ms", 0))
    model = ScriptedChatModel(rule=answer, pause_ms=pause_ms)
    return {"messages": [await model.ainvoke(state["messages"], config)]}


def wants_to_act(state: MessagesState) -> Literal["approval", "__end__"]:
    """Go to the human if the model called a tool, else end."""
    last = state["messages"][-1]
    return "approval" if isinstance(last, AIMessage) and last.tool_calls else "__end__"


def approval(state: MessagesState) -> Command[Literal["tools", "think"]]:
    """Stop for a human, in the form that Agent Inbox and Agent Chat UI show, and carry out the decision."""
    request = state["messages"][-1]
    if not isinstance(request, AIMessage):
        raise TypeError(f"approval: expected an AI message, found {request.type}")
    call = request.tool_calls[0]
    answered: Decisions = interrupt(
        {
            "action_requests": [{"name": call["name"], "args": call["args"], "description": text_of(request)}],
            "review_configs": [{"action_name": call["name"], "allowed_decisions": ["approve", "edit", "reject"]}],
        }
    )
    return carry_out(request, call, answered["decisions"][0])


def carry_out(request: AIMessage, call: ToolCall, decision: Decision) -> Command[Literal["tools", "think"]]:
    """Turn a decision into the next step."""
    if decision["type"] == "approve":
        return Command(goto="tools")
    if decision["type"] == "edit" and "edited_action" in decision:
        edited = decision["edited_action"]
        changed = request.model_copy(update={"tool_calls": [{**call, "name": edited["name"], "args": edited["args"]}]})
        return Command(goto="tools", update={"messages": [changed]})
    reason = decision.get("message", "the human declined")
    refusal = ToolMessage(content=reason, tool_call_id=str(call["id"]), name=call["name"], status="error")
    return Command(goto="think", update={"messages": [refusal]})


builder = StateGraph(MessagesState)
builder.add_node("think", think)
builder.add_node("approval", approval)
builder.add_node("tools", ToolNode([pay]))
builder.add_edge(START, "think")
builder.add_conditional_edges("think", wants_to_act)
builder.add_edge("tools", "think")
graph = builder.compile()
