"""Context of a run in the form of its graph's schema, and the keys of it that `configurable` mirrors.

Source: docs/http-api.md, section 7.2.
"""

import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, TypeGuard

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from agentlog_facts.json_value import Json, JsonObject

MADE_BY = (TypeError, ValueError)
"""Errors of a schema that cannot be made without values."""


def context_keys(schema: object) -> frozenset[str] | None:
    """Return the keys of a context that a schema takes: those that it names, or None for all."""
    if schema is None:
        return None
    if _is_model(schema):
        return None if schema.model_config.get("extra") == "allow" else _model_keys(schema)
    if _is_dataclass(schema):
        return _parameters(schema)
    named = getattr(schema, "__annotations__", None) if hasattr(schema, "__total__") else None
    return frozenset(named) if _is_mapping(named) else None


def schema_context(schema: object, given: JsonObject) -> Any:  # Any: an instance of the schema, which any class may be
    """Return the context that nodes get: the given keys that the schema names, with its defaults for the others.

    Without any given key it is None where the schema needs values. Raises: any error of the schema.
    """
    keys = context_keys(schema)
    taken = {name: value for name, value in given.items() if keys is None or name in keys}
    if not isinstance(schema, type) or not (_is_model(schema) or is_dataclass(schema)):
        return taken or None
    if taken:
        return schema(**taken)
    try:
        return schema()
    except MADE_BY:
        return None


def _model_keys(schema: type[BaseModel]) -> frozenset[str]:
    """Return the names under which a model takes its fields: their own, and their aliases."""
    return frozenset(name for field, info in schema.model_fields.items() for name in (field, *_aliases(info)))


def _aliases(field: FieldInfo) -> tuple[str, ...]:
    choices = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else ()
    return tuple(name for name in (field.alias, field.validation_alias, *choices) if isinstance(name, str))


def _parameters(schema: type[object]) -> frozenset[str] | None:
    """Return the arguments of a dataclass, None if it takes any."""
    parameters = inspect.signature(schema).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return None
    return frozenset(one.name for one in parameters)


def _is_model(schema: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(schema, type) and issubclass(schema, BaseModel)


def _is_dataclass(schema: object) -> TypeGuard[type[object]]:
    return isinstance(schema, type) and is_dataclass(schema)


def _is_mapping(value: object) -> TypeGuard[Mapping[str, Json]]:
    return isinstance(value, Mapping)
