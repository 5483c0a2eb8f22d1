"""Port to the loaded graphs, in JSON: state, history, updates, and the view without a run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from agentlog_facts.checkpoint import CheckpointFact
from agentlog_facts.errors import AgentlogError
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject, dump, dump_object
from agentlog_facts.thread import StateUpdated


class GraphNotFound(AgentlogError):
    """No graph of this id is loaded."""

    code: ClassVar[str] = "graph_not_found"
    status: ClassVar[int] = 404


class BadUpdate(AgentlogError):
    """LangGraph refused the values, the node or the namespace of a state update; the message is LangGraph's."""

    code: ClassVar[str] = "bad_update"
    status: ClassVar[int] = 400


class GraphFailed(AgentlogError):
    """The graph's own code raised while a request needed it; nothing was written. The message says why."""

    code: ClassVar[str] = "graph_failed"
    status: ClassVar[int] = 400


@dataclass(frozen=True, slots=True)
class At:
    """Address of a checkpoint; the default is the latest checkpoint of the root graph."""

    checkpoint_id: str | None = None
    checkpoint_ns: str = ""
    checkpoint_map: JsonObject | None = None


LATEST = At()


@dataclass(frozen=True, slots=True)
class StepUpdate:
    """An update of a superstep that is replayed: values, or a command in their place, as if a node had returned it."""

    values: Json = None
    command: JsonObject | None = None
    as_node: str | None = None


@dataclass(frozen=True, slots=True)
class StateChange:
    """State update to commit: `facts`, then `updated`, in ONE commit on `thread-<id>`.

    The commit demands the version that was read before the update. `checkpoint` is the `configurable` of the response.
    """

    facts: tuple[CheckpointFact, ...]
    updated: StateUpdated
    checkpoint: JsonObject


@dataclass(frozen=True, slots=True)
class EncodedState:
    """Snapshot in the shape of the API (docs/http-api.md, section 6.1), encoded: JSON of each field, in their order.

    `values` holds the JSON of each key of the state; None if the state is not an object. `lasting`: the same rows give
    the same snapshot again, because no code of users had a part in it.
    """

    fields: Mapping[str, bytes]
    values: Mapping[str, bytes] | None
    lasting: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, snapshot: JsonObject) -> "EncodedState":
        """Encode a snapshot."""
        values = snapshot["values"]
        by_key = {name: dump(value) for name, value in values.items()} if isinstance(values, dict) else None
        return cls({name: dump(value) for name, value in snapshot.items()}, by_key)

    def document(self) -> bytes:
        """Return all fields as one JSON object."""
        return dump_object(self.fields)


@dataclass(frozen=True, slots=True)
class ThreadView:
    """State of a thread as its row shows it; `values` is None if the thread has no state."""

    values: JsonObject | None = None
    next: tuple[str, ...] = ()
    interrupts: JsonObject = field(default_factory=dict[str, Json])
    checkpoint_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoredState:
    """State in the last checkpoint of a thread, read without the code of its graph.

    `next` names the nodes that have an open interrupt, or that an edge has triggered and that have not finished; only
    the graph knows all nodes that would run next. `run_id` is the run that wrote the checkpoint, None if there is no
    checkpoint or it was written without a claim. `missing` names the keys whose value the checkpoint does not hold, as
    of a `DeltaChannel` between two copies.
    """

    values: JsonObject | None = None
    next: tuple[str, ...] = ()
    interrupts: JsonObject = field(default_factory=dict[str, Json])
    checkpoint_id: str | None = None
    run_id: RunId | None = None
    missing: frozenset[str] = frozenset()

    def view_after(self, run_id: RunId, values: JsonObject | None, next: tuple[str, ...]) -> ThreadView:
        """Return the state that a run leaves; `values` and `next` are those of the thread before the run.

        They stay if the run wrote no checkpoint. If it did, its `missing` keys stay.
        """
        if self.run_id != run_id:
            return ThreadView(values, next, self.interrupts, self.checkpoint_id)
        kept = {name: value for name, value in (values or {}).items() if name in self.missing}
        return ThreadView(kept | (self.values or {}), self.next, self.interrupts, self.checkpoint_id)


ROOT = "__root__"
"""Key of a view that holds the values of a graph whose state is not an object (an entrypoint's return value)."""


def unrooted(view: JsonObject | None) -> Json:
    """Return the values of a view as clients see them."""
    return view[ROOT] if view is not None and view.keys() == {ROOT} else view


class GraphAccess(Protocol):
    """Loaded graphs over the projected checkpoints.

    Raises: GraphNotFound; GraphFailed when the graph's own code raises; Unavailable when the reads do.
    """

    def graph_ids(self) -> Sequence[str]:
        """Return the ids of the loaded graphs, in the order of the configuration."""
        ...

    def description(self, graph_id: str) -> str | None:
        """Return the description that the configuration gives to a graph."""
        ...

    def context_keys(self, graph_id: str) -> Collection[str] | None:
        """Return the keys of a run's context that its `configurable` mirrors, None for all."""
        ...

    def is_made_by_factory(self, graph_id: str) -> bool:
        """Return whether a factory makes the graph, which then needs `opened_with`."""
        ...

    async def output_values(
        self, graph_id: str, thread_id: ThreadId, values: Json, *, opened_with: JsonObject | None = None
    ) -> Json:
        """Return the part of a state's values that the graph's output schema names: the output of a run.

        `opened_with` is the config of that run with its `context`, for a factory.
        Source: docs/http-api.md, section 7.6.
        """
        ...

    async def get_state(
        self,
        graph_id: str,
        thread_id: ThreadId,
        at: At = LATEST,
        *,
        subgraphs: bool = False,
        opened_with: JsonObject | None = None,
    ) -> EncodedState:
        """Return a snapshot. `opened_with` is the config of the thread's last run with its `context`, for a factory.

        Source: docs/http-api.md, section 6.1.
        """
        ...

    async def get_history(
        self,
        graph_id: str,
        thread_id: ThreadId,
        at: At = LATEST,
        *,
        before: str | None = None,
        limit: int = 1,
        metadata: JsonObject | None = None,
        opened_with: JsonObject | None = None,
    ) -> list[EncodedState]:
        """Return snapshots, newest first in log order; `before` is a checkpoint id.

        Source: docs/http-api.md, section 6.2.
        """
        ...

    async def update_state(
        self,
        graph_id: str,
        thread_id: ThreadId,
        values: Json,
        *,
        as_node: str | None = None,
        at: At = LATEST,
        view: JsonObject | None = None,
        metadata: JsonObject | None = None,
        config: JsonObject | None = None,
        opened_with: JsonObject | None = None,
    ) -> StateChange:
        """Apply values and return the change to commit, without writing it.

        `view` holds the values of the thread's row (None: no state yet); the change is relative to them. `metadata` is
        added to that of the checkpoint. `config` is that of the thread, for a factory. Raises: BadUpdate.
        """
        ...

    async def replay(
        self, graph_id: str, thread_id: ThreadId, supersteps: Sequence[Sequence[StepUpdate]]
    ) -> StateChange:
        """Apply the updates of supersteps to an empty thread; return the change to commit. Raises: BadUpdate."""
        ...

    async def view_without_run(
        self, graph_id: str, thread_id: ThreadId, run_id: RunId, *, opened_with: JsonObject | None = None
    ) -> ThreadView:
        """Return the state without all accepted checkpoints and writes of a run (delete, rollback).

        `opened_with` is the config of that run with its `context`, for a factory.
        """
        ...

    async def view(self, graph_id: str, thread_id: ThreadId, *, opened_with: JsonObject | None = None) -> ThreadView:
        """Return the state of the last accepted checkpoint, to finish a run in place of its worker.

        `opened_with` is the config of that run with its `context`, for a factory.
        """
        ...


class GraphStructures(Protocol):
    """Structure of the loaded graphs, as JSON. `config` is that of an assistant, for a factory.

    Raises: GraphNotFound; GraphFailed when the graph's own code raises. Source: docs/http-api.md, section 4.6.
    """

    async def drawing(self, graph_id: str, config: JsonObject, xray: bool | int) -> bytes:
        """Return {nodes, edges}; `xray` shows the nodes of subgraphs in place of them, all or to a depth."""
        ...

    async def schemas(self, graph_id: str, config: JsonObject) -> bytes:
        """Return {graph_id, input_schema, output_schema, state_schema, config_schema, context_schema}."""
        ...

    async def subgraphs(self, graph_id: str, config: JsonObject, namespace: str | None, recurse: bool) -> bytes:
        """Return namespace -> schemas of the subgraphs, of all or of one; with `recurse`, also of those inside."""
        ...
