"""Decides what a new run is made of: assistant, thread and request merged, server keys on top.

Source: docs/http-api.md, sections 7.1 and 7.2.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from agentlog_facts.configurable import RESERVED_METADATA, is_reserved, is_server_key
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.thread import RunCreated
from agentlog_gateway.http.errors import Problem
from agentlog_gateway.schemas.requests import CheckpointRef
from agentlog_gateway.schemas.run_requests import Command, Send, StatelessRun, ThreadRun
from agentlog_projections.queries.command_context import RunAssistant


@dataclass(frozen=True, slots=True)
class RunRequest:
    """Everything that a new run is made of besides the thread's metadata."""

    body: StatelessRun
    run_id: RunId
    thread_id: ThreadId
    assistant: RunAssistant
    request_id: str
    now: datetime
    temporary: bool

    def created(self, thread_metadata: JsonObject) -> RunCreated:
        """Return the fact. Raises: Problem 400 when `context` and `config.configurable` are both given."""
        metadata = self._metadata(thread_metadata)
        delay_s = self.body.after_seconds
        return RunCreated(
            run_id=self.run_id,
            thread_id=self.thread_id,
            assistant=self._assistant(),
            metadata=metadata,
            kwargs=self._kwargs(metadata),
            multitask_strategy=self.body.multitask_strategy,
            due_at=self.now + timedelta(seconds=delay_s) if delay_s > 0 else None,
            temporary=self.temporary,
        )

    def _assistant(self) -> JsonObject:
        found = self.assistant
        return {
            "assistant_id": found.assistant_id,
            "graph_id": found.graph_id,
            "version": found.version,
            "config": found.config,
            "context": found.context,
            "metadata": found.metadata,
        }

    def _metadata(self, thread_metadata: JsonObject) -> JsonObject:
        given = [self.assistant.metadata, thread_metadata, self.body.config.metadata or {}, self.body.metadata]
        merged = {name: value for part in given for name, value in part.items() if name not in RESERVED_METADATA}
        return merged | {"graph_id": self.assistant.graph_id, "assistant_id": self.assistant.assistant_id}

    def _kwargs(self, metadata: JsonObject) -> JsonObject:
        body = self.body
        durability = body.durability or ("exit" if body.checkpoint_during is False else "async")
        context, configurable = self._context()
        return {
            "input": None if body.command is not None else body.input,
            "command": None if body.command is None else command_json(body.command),
            "config": self._config(configurable, metadata),
            "context": context,
            "stream_mode": [*body.stream_mode],
            "interrupt_before": _nodes(body.interrupt_before),
            "interrupt_after": _nodes(body.interrupt_after),
            "webhook": None,
            "feedback_keys": None,
            "temporary": self.temporary,
            "subgraphs": body.stream_subgraphs,
            "resumable": body.stream_resumable,
            "checkpoint_during": durability != "exit",
            "durability": durability,
        }

    def _context(self) -> tuple[JsonObject, JsonObject]:
        """Return context and configurable: the assistant's, the run's by key over it, each mirrored in the other."""
        given, context = self.body.config.configurable or {}, self.body.context or {}
        if given and context:
            detail = "Cannot specify both config.configurable and context: give only one of the two"
            raise Problem(400, detail, reason="context_and_configurable")
        theirs = _object(self.assistant.config.get("configurable"))
        configurable = {**self.assistant.context, **theirs, **context, **given}
        return {**_own(theirs), **self.assistant.context, **_own(given), **context}, configurable

    def _config(self, configurable: JsonObject, metadata: JsonObject) -> JsonObject:
        given: JsonObject = self.body.config.model_dump(exclude_none=True, exclude={"configurable", "metadata"})
        merged: JsonObject = {"tags": [], **self.assistant.config, **given}
        theirs = {name: value for name, value in configurable.items() if not is_reserved(name)}
        merged["configurable"] = {**theirs, **self._checkpoint(), **self._server_keys()}
        merged["metadata"] = metadata
        return merged

    def _checkpoint(self) -> JsonObject:
        if not isinstance(self.body, ThreadRun):
            return {}
        ref = self.body.checkpoint or CheckpointRef()
        found: JsonObject = {
            "checkpoint_id": ref.checkpoint_id or self.body.checkpoint_id,
            "checkpoint_ns": ref.checkpoint_ns,
            "checkpoint_map": ref.checkpoint_map,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _server_keys(self) -> JsonObject:
        return {
            "thread_id": self.thread_id,
            "run_id": self.run_id,
            "graph_id": self.assistant.graph_id,
            "assistant_id": self.assistant.assistant_id,
            "user_id": "",
            "langgraph_auth_user": None,
            "langgraph_auth_user_id": "",
            "langgraph_auth_permissions": [],
            "langgraph_request_id": self.request_id,
            "__request_start_time_ms__": int(self.now.timestamp() * 1000),
            "__after_seconds__": self.body.after_seconds,
        }


def _own(configurable: JsonObject) -> JsonObject:
    return {name: value for name, value in configurable.items() if not is_server_key(name)}


def command_json(command: Command) -> JsonObject:
    """Return a command as it is stored: {update, resume, goto}."""
    return {"update": command.update, "resume": command.resume, "goto": _goto(command.goto)}


def _goto(goto: str | list[str] | Send | list[Send] | None) -> Json:
    match goto:
        case Send():
            return _send(goto)
        case list():
            return [_send(item) if isinstance(item, Send) else item for item in goto]
        case _:
            return goto


def _send(send: Send) -> JsonObject:
    return {"node": send.node, "input": send.input}


def _nodes(nodes: str | list[str] | None) -> Json:
    return [*nodes] if isinstance(nodes, list) else nodes


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}
