"""Parts of a compiled graph that decide about its snapshots: channels, nodes with their triggers, subgraphs."""

# pyright: reportMissingTypeStubs=false, reportPrivateUsage=false, reportUnknownMemberType=false
# (these parts of langgraph are not in our stubs)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from langgraph.channels.any_value import AnyValue
from langgraph.channels.base import BaseChannel
from langgraph.channels.binop import BinaryOperatorAggregate
from langgraph.channels.delta import DeltaChannel
from langgraph.channels.ephemeral_value import EphemeralValue
from langgraph.channels.last_value import LastValue
from langgraph.channels.topic import Topic
from langgraph.managed.base import ManagedValueSpec
from langgraph.pregel._read import PregelNode
from langgraph.pregel.protocol import PregelProtocol

from agentlog_facts.json_value import dump
from agentlog_infra.langgraph.loading.graphs import Graph
from agentlog_infra.langgraph.snapshots.user_code import is_class_of_users
from agentlog_infra.langgraph.value_json import to_json

Channel: TypeAlias = BaseChannel[Any, Any, Any]
Remote: TypeAlias = PregelProtocol[Any, Any, Any, Any]
"""A graph whose states only another server knows."""
PLAIN = (LastValue, AnyValue, EphemeralValue, BinaryOperatorAggregate)
"""Channels (not their subclasses) whose stored value is what they show, so that a read need not decode it."""
EMPTY = (LastValue, AnyValue, EphemeralValue, Topic)
"""Channels (not their subclasses) that have no value if none is stored."""
REPLAYED = (DeltaChannel, BinaryOperatorAggregate)
"""Channels that LangGraph rebuilds from earlier writes if a checkpoint names a version without a value."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A node that may run: its triggers, and the triggers in the order in which they enter the task's id."""

    name: str
    triggers: Sequence[str]
    sorted_triggers: tuple[str, ...]
    node: PregelNode


class GraphPlan:
    """Parts of one compiled graph that decide about its snapshots."""

    def __init__(self, graph: Graph) -> None:
        self.trigger_to_nodes = graph.trigger_to_nodes
        self.keys: str | Sequence[str] = graph.stream_channels_asis
        self.channels: dict[str, Channel] = {}
        self.managed: dict[str, ManagedValueSpec] = {}
        for name, spec in graph.channels.items():
            if isinstance(spec, BaseChannel):
                self.channels[name] = spec
            else:
                self.managed[name] = spec
        self.nodes = [
            NodePlan(name, tuple(node.triggers), tuple(sorted(node.triggers)), node)
            for name, node in graph.nodes.items()
            if node.node is not None
        ]
        self.runnable = {one.name for one in self.nodes}
        self.subgraphs: Mapping[str, Graph | Remote] = dict(graph.get_subgraphs())
        self._inner: dict[str, GraphPlan] = {}
        self.plain = {name for name, spec in self.channels.items() if type(spec) in PLAIN}
        self.of_users = {name for name, spec in self.channels.items() if is_class_of_users(spec)}
        self.empty = {name for name, spec in self.channels.items() if type(spec) in EMPTY}
        self.replayed = {name for name, spec in self.channels.items() if isinstance(spec, REPLAYED)}
        self.defaults = {name: dump(to_json(spec.get())) for name, spec in self._initial().items()}
        """JSON of the channels that have a value before anything is written to them, unless code of users makes it."""

    def inner(self, name: str, graph: Graph) -> "GraphPlan":
        """Return the plan of the subgraph in a node."""
        if name not in self._inner:
            self._inner[name] = GraphPlan(graph)
        return self._inner[name]

    def _initial(self) -> dict[str, Channel]:
        return {
            name: spec
            for name, spec in self.channels.items()
            if type(spec) is BinaryOperatorAggregate and name not in self.of_users and spec.is_available()
        }
