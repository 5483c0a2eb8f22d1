"""A graph that counts visits of each user in the store, over all threads, in async and in sync code."""

from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore, Item


class Visit(TypedDict, total=False):
    """State of the graph. `forget`: delete the count. `bad`: put a value that no store accepts."""

    who: str
    forget: bool
    bad: bool
    count: int
    known: list[str]


def _next(found: Item | None) -> int:
    return 1 if found is None else int(found.value["count"]) + 1


def _store(runtime: Runtime) -> BaseStore:
    if runtime.store is None:
        raise RuntimeError("the server gives no store")
    return runtime.store


async def counting(state: Visit, runtime: Runtime) -> Visit:
    """Increase the count, and read it back."""
    store, place = _store(runtime), ("visits", state.get("who", ""))
    if state.get("forget"):
        await store.adelete(place, "seen")
        return {"count": _next(await store.aget(place, "seen")) - 1}
    await store.aput(place, "seen", {"count": _next(await store.aget(place, "seen"))})
    return {"count": _next(await store.aget(place, "seen")) - 1}


def listing(state: Visit, runtime: Runtime) -> Visit:
    """List all visitors, from another thread."""
    store = _store(runtime)
    store.put(("lists",), state.get("who", ""), {"bad": object()} if state.get("bad") else {})
    found = store.search(("visits",), filter={"count": {"$gte": 1}}, limit=100)
    return {"known": sorted(item.namespace[1] for item in found)}


_built = StateGraph(Visit)
_built.add_node("counting", counting)
_built.add_node("listing", listing)
_built.add_edge(START, "counting")
_built.add_edge("counting", "listing")
_built.add_edge("listing", END)
graph = _built.compile()
