"""JSON schemas of a graph: of its input, output, state, and context. Source: docs/http-api.md, section 4.6."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, TypeGuard, get_type_hints, is_typeddict

from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from pydantic import BaseModel, Field, TypeAdapter, create_model

from agentlog_facts.graph_ports import GraphFailed
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.langgraph.errors import code_failures
from agentlog_infra.langgraph.loading.graphs import Graph
from agentlog_infra.langgraph.value_json import to_json

log = logging.getLogger(__name__)

FIELDS = ("graph_id", "input_schema", "output_schema", "state_schema", "config_schema", "context_schema")


def graph_schemas(graph_id: str, graph: Graph) -> JsonObject:
    """Return the schemas of a graph; a schema that its classes do not allow is null, and a log line tells why."""
    context = _context_schema(graph_id, graph)
    output = _made(graph_id, "output", graph.get_output_jsonschema, lambda: _output_type(graph))
    return {
        "graph_id": graph_id,
        "input_schema": _made(graph_id, "input", graph.get_input_jsonschema, lambda: _input_type(graph)),
        "output_schema": output,
        "state_schema": _state_schema(graph_id, graph) if isinstance(graph, CompiledStateGraph) else output,
        "config_schema": context or {},
        "context_schema": context,
    }


def _state_schema(graph_id: str, graph: "CompiledStateGraph[Any, Any, Any, Any]") -> Json:
    schema = graph.builder.state_schema

    def plain() -> Mapping[str, object]:
        return _json_schema(schema)

    def by_channels() -> Mapping[str, object]:
        return Pregel.get_output_jsonschema(graph)

    return _made(graph_id, "state", plain if _has_schema(schema) else by_channels, lambda: schema)


def _context_schema(graph_id: str, graph: Graph) -> Json:
    if graph.context_schema is None:
        return None
    return _made(graph_id, "context", lambda: graph.get_context_jsonschema() or {}, lambda: graph.context_schema)


def _input_type(graph: Graph) -> object:
    return graph.builder.input_schema if isinstance(graph, CompiledStateGraph) else None


def _output_type(graph: Graph) -> object:
    return graph.builder.output_schema if isinstance(graph, CompiledStateGraph) else None


def _made(graph_id: str, name: str, make: Callable[[], Mapping[str, object]], kind: Callable[[], object]) -> Json:
    """Return a schema as JSON, None if its classes have none.

    Below Python 3.12 pydantic refuses `typing.TypedDict`; then the schema comes from a model with its fields.
    """

    def copied() -> Mapping[str, object]:
        return _model_of(kind()).model_json_schema()

    failed: GraphFailed | None = None
    for attempt in (make, copied) if is_typeddict(kind()) else (make,):
        try:
            with code_failures(graph_id, f"the schema of its {name} was made"):
                return to_json(dict(attempt()))
        except GraphFailed as error:
            failed = error
    log.warning("graph.without_schema", extra={"graph_id": graph_id, "schema": name, "error": str(failed)[:1000]})
    return None


def _has_schema(schema: object) -> bool:
    """Return whether pydantic describes a class; `__total__` tells the TypedDict of any library."""
    return hasattr(schema, "__total__") or is_dataclass(schema) or _is_model(schema)


def _is_model(schema: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(schema, type) and issubclass(schema, BaseModel)


def _json_schema(schema: Any) -> dict[str, Any]:  # Any: a class that pydantic can describe
    return schema.model_json_schema() if _is_model(schema) else TypeAdapter(schema).json_schema()


def _model_of(schema: Any, seen: tuple[object, ...] = ()) -> type[BaseModel]:  # Any: known at run time only
    """Return a model with the fields of a TypedDict, and so for fields that are one."""
    fields: dict[str, Any] = {}
    for name, hint in get_type_hints(schema, include_extras=True).items():
        nested = is_typeddict(hint) and hint not in seen
        kind = _model_of(hint, (*seen, schema)) if nested else hint
        fields[name] = (kind, ... if name in schema.__required_keys__ else Field(default_factory=dict))
    return create_model(schema.__name__, **fields)
