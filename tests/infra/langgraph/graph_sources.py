"""Sources of graphs for tests of second attempts: parallel interrupts, and one graph with all kinds of steps."""

PAIR = """
import asyncio
import operator
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

class State(TypedDict, total=False):
    said: Annotated[list[str], operator.add]

works, worked = asyncio.Event(), asyncio.Event()

async def ask(state):
    answer = interrupt("may I?")
    works.set()
    await worked.wait()
    return {"said": [f"ask: {answer}"]}

def inner(state):
    return {"said": [f"sub: {interrupt('and I?')}"]}

def close(state):
    return {"said": []}

sub = StateGraph(State).add_node("inner", inner).add_node("close", close)
sub = sub.add_edge(START, "inner").add_edge("inner", "close").compile()
pair = StateGraph(State).add_node("ask", ask).add_node("sub", sub)
pair = pair.add_edge(START, "ask").add_edge(START, "sub").compile()
"""

MIXED = '''
"""A graph whose input names the steps of a run: Send, parallel branches, interrupts, a subgraph, failures, loops."""

import asyncio
import operator
from typing import Annotated
from typing_extensions import TypedDict
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

def merge(a, b):
    return {**(a or {}), **(b or {})}

def extend(state, writes):
    return [*state, *(item for write in writes for item in write)]

class Sub(TypedDict, total=False):
    plan: dict
    items: Annotated[list, operator.add]
    inner: Annotated[list, operator.add]

async def one(state):
    return {"inner": ["s1"], "items": ["sub1"]}

async def two(state):
    if state.get("plan", {}).get("sub_ask"):
        answer = interrupt({"sub": len(state.get("inner", []))})
        return {"inner": [f"s2:{answer}"], "items": [f"sub2:{answer}"]}
    return {"inner": ["s2"], "items": ["sub2"]}

async def three(state):
    if state.get("plan", {}).get("sub_ask2"):
        answer = interrupt({"sub3": 1})
        return {"inner": [f"s3:{answer}"], "items": [f"sub3:{answer}"]}
    return {"inner": ["s3"], "items": ["sub3"]}

sub = StateGraph(Sub).add_node(one).add_node(two).add_node(three)
sub = sub.add_edge(START, "one").add_edge("one", "two").add_edge("two", "three").add_edge("three", END).compile()

def build(items_type):
    class State(TypedDict, total=False):
        plan: dict
        items: items_type
        d: Annotated[dict, merge]
        n: int

    async def begin(state):
        return {"items": [f"begin{state.get('n', 0)}"], "n": state.get("n", 0) + 1, "d": {"last": "begin"}}

    def route(state):
        plan = state.get("plan", {})
        if plan.get("lost"):
            raise ValueError("no way")
        to = [Send("work", {"i": i, "plan": plan}) for i in range(plan.get("fan", 0))]
        to += [name for name in ("ask", "sub", "slow") if plan.get(name)]
        return to or ["join"]

    async def work(state):
        i, plan = state["i"], state["plan"]
        if plan.get("fail") == i:
            raise ValueError(f"work {i} fails")
        if plan.get("work_ask") == i:
            answer = interrupt({"work": i})
            return {"items": [f"w{i}:{answer}"], "d": {f"w{i}": answer}}
        return {"items": [f"w{i}"], "d": {f"w{i}": i}}

    async def ask(state):
        answer = interrupt({"q": 1})
        if state.get("plan", {}).get("ask2"):
            more = interrupt({"q": 2, "a": answer})
            return {"items": [f"ask:{answer}:{more}"], "d": {"ask": [answer, more]}}
        return {"items": [f"ask:{answer}"], "d": {"ask": answer}}

    async def slow(state):
        try:
            for _ in range(20):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            return {"items": ["cut short"]}
        return {"items": ["slow"]}

    async def join(state):
        plan = state.get("plan", {})
        if plan.get("loop", 0) > 0:
            again = {**plan, "loop": plan["loop"] - 1}
            return Command(update={"items": ["again"], "plan": again}, goto="begin")
        return {"items": ["join"], "d": {"last": "join"}}

    graph = StateGraph(State)
    for node in (begin, work, ask, slow):
        graph.add_node(node)
    graph.add_node("join", join, destinations=("begin",))
    graph.add_node("sub", sub)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", route, ["work", "ask", "sub", "slow", "join"])
    for name in ("work", "ask", "sub", "slow"):
        graph.add_edge(name, "join")
    return graph.compile()

mixed = build(Annotated[list, operator.add])
delta = build(Annotated[list, DeltaChannel(extend, snapshot_frequency=4)])
without_copies = build(Annotated[list, DeltaChannel(extend, snapshot_frequency=1000)])
'''
