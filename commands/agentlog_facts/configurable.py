"""Keys that belong to the server: those of `config.configurable`, and those of a run's metadata.

Source: docs/http-api.md, section 7.2.
"""

CHECKPOINT_ADDRESS = ("checkpoint_id", "thread_id", "checkpoint_ns", "checkpoint_map")
"""The keys that name a checkpoint, in the order in which the API shows them."""
CHECKPOINT_KEYS = frozenset(CHECKPOINT_ADDRESS) - {"thread_id"}
"""The keys that name a checkpoint of a known thread; a client may give them."""
RESERVED_METADATA = frozenset({"run_id", "thread_id"})
"""Keys that nobody's metadata brings into a run."""

_SERVER_KEYS = CHECKPOINT_KEYS | {"thread_id", "run_id", "graph_id", "assistant_id", "user_id", "langgraph_request_id"}
_RESERVED_PREFIXES = ("langgraph_auth", "__")


def is_reserved(name: str) -> bool:
    """Tell whether no client may set a key of `configurable`; LangGraph keeps its own keys under `__pregel_`."""
    return name.startswith(_RESERVED_PREFIXES)


def is_server_key(name: str) -> bool:
    """Tell whether a key of `configurable` is the server's, so that it is no context of the user."""
    return name in _SERVER_KEYS or is_reserved(name)


def is_hidden(name: str) -> bool:
    """Tell whether a thread's row leaves a key of `configurable` out.

    Rows hide every key that begins with `langgraph_request_id`. The context of a run hides that one name only. Both
    have been so since the first release, and rows of logs from then must stay as they are.
    """
    return is_server_key(name) or name.startswith("langgraph_request_id")
