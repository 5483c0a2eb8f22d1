"""Request for a run, and the only merge of assistant, thread and request into `RunCreated`.

Source: docs/http-api.md, sections 7.1 and 7.2.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from agentlog_commands.command import Refused
from agentlog_commands.metadata_limit import DEFAULT, MetadataLimit
from agentlog_facts.configurable import RESERVED_METADATA, RESERVED_THREAD_METADATA, USER_ID, is_reserved, is_server_key
from agentlog_facts.ids import AssistantId, RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.thread import RunCreated, answered

Strategy: TypeAlias = Literal["reject", "rollback", "interrupt", "enqueue"]
Durability: TypeAlias = Literal["sync", "async", "exit"]
BOTH_GIVEN = "Cannot specify both config.configurable and context: give only one of the two"


@dataclass(frozen=True, slots=True)
class RunAssistant:
    """The parts of an assistant that its runs take over."""

    assistant_id: AssistantId
    graph_id: str
    version: int
    config: JsonObject
    context: JsonObject
    metadata: JsonObject


@dataclass(frozen=True, slots=True)
class OpenInterrupts:
    """The open interrupts of a thread, as interrupt id -> task id, and its newest checkpoint, None if it has none."""

    tasks: Mapping[str, str]
    checkpoint_id: str | None

    def answered_by(self, run: RunCreated, checkpoint_id: str | None) -> tuple[JsonObject, ...]:
        """Return the interrupts that a resume answers, as `RunCreated.resumes` names them.

        `checkpoint_id` is that from which the run starts, None for the newest one. Without ids in the resume, it
        answers all that are open.
        """
        named = answered(run) or ()
        if checkpoint_id in (None, self.checkpoint_id):
            return tuple(_resumed(name, self.tasks.get(name), self.checkpoint_id) for name in named or self.tasks)
        return tuple(_resumed(name, None, checkpoint_id) for name in named or (None,))


def _resumed(interrupt_id: str | None, task_id: str | None, checkpoint_id: str | None) -> JsonObject:
    return {"interrupt_id": interrupt_id, "task_id": task_id, "checkpoint_id": checkpoint_id}


@dataclass(frozen=True, slots=True)
class RunIds:
    """Ids of a new run; `request_id` is the id of the request that creates it."""

    run_id: RunId
    thread_id: ThreadId
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Request for a run, over HTTP or from any other source.

    `config` is LangGraph's config with `configurable` and `metadata`. `checkpoint` holds the keys of `configurable`
    that name the checkpoint to start from. `creates_thread`: create a missing thread. `temporary`: delete the
    thread at the end of the run. `strict_resume`: an answer to an interrupt that does not wait is the run's error.
    `cron_id` is set for a run of a cron; the run finds it in `configurable` and `context`.
    """

    input: Json = None
    command: JsonObject | None = None
    metadata: JsonObject = field(default_factory=dict[str, Json])
    config: JsonObject = field(default_factory=dict[str, Json])
    context: JsonObject = field(default_factory=dict[str, Json])
    checkpoint: JsonObject = field(default_factory=dict[str, Json])
    interrupt_before: Json = None
    interrupt_after: Json = None
    stream_mode: Sequence[str] = ("values",)
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    multitask_strategy: Strategy = "enqueue"
    after_seconds: float = 0
    durability: Durability = "async"
    creates_thread: bool = False
    temporary: bool = False
    strict_resume: bool = False
    feedback_keys: Sequence[str] = ()
    cron_id: str | None = None

    @property
    def resumes(self) -> bool:
        """Return whether the run answers an interrupt."""
        return self.command is not None and self.command.get("resume") is not None

    @property
    def new_thread(self) -> JsonObject | None:
        """Return the metadata for a missing thread, None if the run must not create it."""
        kept = {name: value for name, value in self.metadata.items() if name not in RESERVED_THREAD_METADATA}
        return kept if self.creates_thread else None

    def resolve(
        self,
        assistant: RunAssistant,
        thread_metadata: JsonObject,
        ids: RunIds,
        now: datetime,
        limit: MetadataLimit = DEFAULT,
        context_keys: Collection[str] | None = None,
    ) -> RunCreated | Refused:
        """Return the fact with everything that the run needs.

        `context_keys` are the keys of `context` that `configurable` mirrors; None stands for all. Refuse `context`
        together with `config.configurable`, and metadata of the request (with that of its config) that is too large.
        """
        given = _object(self.config, "configurable")
        if given and self.context:
            return Refused("context_and_configurable", BOTH_GIVEN)
        refusal = limit.refusal({**_object(self.config, "metadata"), **self.metadata})
        if refusal is not None:
            return refusal
        metadata = self._metadata(assistant, thread_metadata)
        config: JsonObject = {"tags": [], **assistant.config, **self.config}
        configurable = self._configurable(assistant, context_keys)
        config["configurable"] = configurable | self._server_values(assistant, ids, now)
        config["metadata"] = metadata
        return RunCreated(
            run_id=ids.run_id,
            thread_id=ids.thread_id,
            assistant=_assistant_json(assistant),
            metadata=metadata,
            kwargs=self._kwargs(config, self._context(assistant)),
            multitask_strategy=self.multitask_strategy,
            due_at=now + timedelta(seconds=self.after_seconds) if self.after_seconds > 0 else None,
            temporary=self.temporary,
            thread_config=self._thread_config(assistant),
        )

    def _thread_config(self, assistant: RunAssistant) -> JsonObject:
        """Return the config that the thread shows, with the `configurable` of the assistant only.

        Source: docs/http-api.md, section 5.1.
        """
        given = {**assistant.config, **self.config}
        shown: JsonObject = {"configurable": _object(assistant.config, "configurable")}
        shown |= {name: value for name, value in given.items() if name not in ("configurable", "metadata")}
        metadata = _object(assistant.config, "metadata") | _object(self.config, "metadata")
        if metadata:
            shown["metadata"] = metadata
        return shown

    def _metadata(self, assistant: RunAssistant, thread_metadata: JsonObject) -> JsonObject:
        """Merge assistant < thread < config.metadata < run metadata; the ids of graph and assistant win over all."""
        theirs, ours = _object(assistant.config, "metadata"), _object(self.config, "metadata")
        given = [assistant.metadata, theirs, thread_metadata, ours, self.metadata]
        merged = {name: value for part in given for name, value in part.items() if name not in RESERVED_METADATA}
        return merged | {"graph_id": assistant.graph_id, "assistant_id": assistant.assistant_id}

    def _context(self, assistant: RunAssistant) -> JsonObject:
        """Merge assistant < run by key; keys of `configurable` are context too, except the server's keys."""
        theirs, ours = _own(assistant.config), _own(self.config)
        merged: JsonObject = {**theirs, **assistant.context, **ours, **self.context}
        return merged if self.cron_id is None else merged | {"cron_id": self.cron_id}

    def _configurable(self, assistant: RunAssistant, context_keys: Collection[str] | None) -> JsonObject:
        """Merge assistant < run by key; keys of `context` are in `configurable` too, as far as `context_keys` go."""
        theirs, ours = _object(assistant.config, "configurable"), _object(self.config, "configurable")
        parts = (mirrored(assistant.context, context_keys), theirs, mirrored(self.context, context_keys), ours)
        merged = {name: value for part in parts for name, value in part.items() if not is_reserved(name)}
        if merged.get(USER_ID) is None:
            merged[USER_ID] = ""
        return merged | self.checkpoint

    def _server_values(self, assistant: RunAssistant, ids: RunIds, now: datetime) -> JsonObject:
        return {
            **({} if self.cron_id is None else {"cron_id": self.cron_id}),
            "thread_id": ids.thread_id,
            "run_id": ids.run_id,
            "graph_id": assistant.graph_id,
            "assistant_id": assistant.assistant_id,
            "langgraph_auth_user": None,
            "langgraph_auth_user_id": "",
            "langgraph_auth_permissions": [],
            "langgraph_request_id": ids.request_id,
            "__request_start_time_ms__": int(now.timestamp() * 1000),
            "__after_seconds__": int(delay_s) if (delay_s := float(self.after_seconds)).is_integer() else delay_s,
        }

    def _kwargs(self, config: JsonObject, context: JsonObject) -> JsonObject:
        command = self.command
        return {
            "input": self.input,
            "command": None if command is None else {name: command.get(name) for name in ("update", "resume", "goto")},
            "config": config,
            "context": context,
            "stream_mode": [*self.stream_mode],
            "interrupt_before": self.interrupt_before,
            "interrupt_after": self.interrupt_after,
            "webhook": None,
            "feedback_keys": [*self.feedback_keys] or None,
            "temporary": self.temporary,
            "subgraphs": self.stream_subgraphs,
            "resumable": self.stream_resumable,
            "checkpoint_during": self.durability != "exit",
            "durability": self.durability,
            **({"strict_resume": True} if self.strict_resume else {}),
        }


def mirrored(context: JsonObject, keys: Collection[str] | None) -> JsonObject:
    """Return the part of a context that `configurable` mirrors: these keys of it, or all for None."""
    return {name: value for name, value in context.items() if keys is None or name in keys}


def _assistant_json(assistant: RunAssistant) -> JsonObject:
    return {
        "assistant_id": assistant.assistant_id,
        "graph_id": assistant.graph_id,
        "version": assistant.version,
        "config": assistant.config,
        "context": assistant.context,
        "metadata": assistant.metadata,
    }


def _own(config: JsonObject) -> JsonObject:
    """Return the keys of `configurable` that belong to the user."""
    configurable = _object(config, "configurable")
    return {name: value for name, value in configurable.items() if not is_server_key(name)}


def _object(holder: JsonObject, name: str) -> JsonObject:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}
