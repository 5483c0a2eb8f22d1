"""Keys of `config.configurable` and of a run's metadata that belong to the server.

Source: docs/http-api.md, section 7.2.
"""

CHECKPOINT_ADDRESS = ("checkpoint_id", "thread_id", "checkpoint_ns", "checkpoint_map")
"""The keys that name a checkpoint, in the order in which the API shows them."""
CHECKPOINT_KEYS = frozenset(CHECKPOINT_ADDRESS) - {"thread_id"}
"""The keys that name a checkpoint of a known thread; a client may give them."""
NODE_METADATA = (
    "langgraph_node",
    "langgraph_step",
    "langgraph_path",
    "langgraph_triggers",
    "langgraph_checkpoint_ns",
)
"""Keys of a config's metadata that name the task of a node. The checkpoints of a subgraph carry those of its node."""
RESERVED_METADATA = frozenset({"run_id", "thread_id"})
"""Keys that are dropped when metadata is merged into that of a run."""
RESERVED_THREAD_METADATA = RESERVED_METADATA | {"assistant_id"}
"""Keys that are dropped from the metadata of a thread. Source: docs/http-api.md, section 5.1."""

USER_ID = "user_id"
"""The identity of the caller, unless the client gives another one."""

_SERVER_KEYS = CHECKPOINT_KEYS | {"thread_id", "run_id", "graph_id", "assistant_id", "langgraph_request_id"}
_RESERVED_PREFIXES = ("langgraph_auth", "__")


def is_reserved(name: str) -> bool:
    """Return whether clients must not set a key of `configurable`; LangGraph's own keys begin with `__pregel_`."""
    return name.startswith(_RESERVED_PREFIXES)


def is_server_key(name: str) -> bool:
    """Return whether a key of `configurable` belongs to the server, and so not to the context of the user."""
    return name in _SERVER_KEYS or is_reserved(name)


def is_hidden(name: str) -> bool:
    """Return whether a thread's row leaves out a key of the `configurable` of a run without a `thread_config`.

    Rows leave out `user_id` and every key that begins with `langgraph_request_id`. The rule dates from the first
    release: its logs must fold to the same rows.
    """
    return is_server_key(name) or name == USER_ID or name.startswith("langgraph_request_id")
