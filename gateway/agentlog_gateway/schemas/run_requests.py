"""Models of bodies that create runs, each with its `RunRequest`. Source: docs/http-api.md, section 7.1."""

from dataclasses import replace
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, RootModel, field_validator, model_validator

from agentlog_commands.run_request import Durability, RunRequest, Strategy
from agentlog_facts.json_value import Json, JsonObject
from agentlog_gateway import timeouts
from agentlog_gateway.schemas.requests import (
    AnyJson,
    AnyObject,
    Body,
    CheckpointRef,
    CheckpointTarget,
    Command,
    NotSupported,
    Uuid,
)

StreamMode: TypeAlias = Literal[
    "values", "messages", "messages-tuple", "tasks", "checkpoints", "updates", "events", "debug", "custom", "tools"
]


def _distinct(modes: list[StreamMode]) -> list[StreamMode]:
    return list(dict.fromkeys(modes)) or ["values"]


def _default_modes() -> list[StreamMode]:
    return ["values"]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


StreamModes: TypeAlias = Annotated[list[StreamMode], BeforeValidator(_as_list), AfterValidator(_distinct)]
Nodes: TypeAlias = Literal["*"] | list[str]
FeedbackKey: TypeAlias = Annotated[str, Field(min_length=1, max_length=255)]
MOST_FEEDBACK_KEYS = 100
MOST_RUNS = 1000
"""Most runs of one request."""


class RunConfig(Body):
    """LangGraph's config; other keys than these are stored too."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    tags: list[str] | None = None
    recursion_limit: Annotated[int, Field(ge=1)] | None = None
    configurable: AnyObject | None = None
    metadata: AnyObject | None = None

    @field_validator("configurable")
    @classmethod
    def _demand_readable_checkpoint(cls, given: JsonObject | None) -> JsonObject | None:
        place = given or {}
        for name in ("checkpoint_id", "checkpoint_ns"):
            if not isinstance(place.get(name), str | None):
                raise ValueError(f"Invalid checkpoint ID: {name} must be a text")
        if not isinstance(place.get("checkpoint_map"), dict | None):
            raise ValueError("Invalid checkpoint ID: checkpoint_map must be an object")
        return given

    def stored(self) -> JsonObject:
        """Return the config in its stored form, without fields that are null."""
        given: JsonObject = self.model_dump(exclude_none=True, exclude={"configurable", "metadata"})
        return {**given, "configurable": self.configurable or {}, "metadata": self.metadata or {}}


class StatelessRun(Body):
    """POST /runs, /runs/stream, /runs/wait."""

    assistant_id: str
    input: AnyJson = None
    command: Command | None = None
    metadata: AnyObject = Field(default_factory=dict[str, Json])
    config: RunConfig = Field(default_factory=RunConfig)
    context: AnyObject | None = None
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    stream_mode: StreamModes = Field(default_factory=_default_modes)
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    on_disconnect: Literal["cancel", "continue"] = "continue"
    on_completion: Literal["delete", "keep"] = "delete"
    multitask_strategy: Strategy = "enqueue"
    after_seconds: Annotated[float, Field(le=timeouts.LONGEST_RUN_DELAY_S)] = 0
    durability: Durability | None = None
    checkpoint_during: bool | None = None
    feedback_keys: list[FeedbackKey] | None = Field(None, max_length=MOST_FEEDBACK_KEYS)
    webhook: NotSupported = None
    langsmith_tracer: NotSupported = None

    def request(self) -> RunRequest:
        """Return the request for a run on a new thread."""
        return RunRequest(
            input=self.input,
            command=None if self.command is None else self.command.stored(),
            metadata=self.metadata,
            config=self.config.stored(),
            context=self.context or {},
            interrupt_before=_nodes(self.interrupt_before),
            interrupt_after=_nodes(self.interrupt_after),
            stream_mode=self.stream_mode,
            stream_subgraphs=self.stream_subgraphs,
            stream_resumable=self.stream_resumable,
            multitask_strategy=self.multitask_strategy,
            after_seconds=self.after_seconds,
            durability=self.durability or ("exit" if self.checkpoint_during is False else "async"),
            creates_thread=True,
            temporary=self.on_completion == "delete",
            feedback_keys=tuple(self.feedback_keys or ()),
        )


class ThreadRun(StatelessRun):
    """POST /threads/{thread_id}/runs, .../runs/stream, .../runs/wait."""

    checkpoint: CheckpointTarget | None = None
    checkpoint_id: Uuid | None = None
    if_not_exists: Literal["create", "reject"] = "reject"
    strict_resume: bool = False

    def request(self) -> RunRequest:
        """Return the request for a run on a thread; `checkpoint_id` is the older name of the checkpoint's id."""
        ref = self.checkpoint or CheckpointRef()
        named: JsonObject = {
            "checkpoint_id": ref.checkpoint_id or self.checkpoint_id,
            "checkpoint_ns": ref.checkpoint_ns,
            "checkpoint_map": ref.checkpoint_map,
        }
        return replace(
            super().request(),
            checkpoint={name: value for name, value in named.items() if value is not None},
            creates_thread=self.if_not_exists == "create",
            temporary=False,
            strict_resume=self.strict_resume,
        )


class RunBatch(RootModel[Annotated[list[StatelessRun], Field(min_length=1, max_length=MOST_RUNS)]]):
    """POST /runs/batch."""

    model_config = ConfigDict(strict=True, frozen=True)


class RunsCancel(Body):
    """POST /runs/cancel: either a status, or a thread with its runs."""

    status: Literal["pending", "running", "all"] | None = None
    thread_id: Uuid | None = None
    run_ids: Annotated[list[Uuid], Field(min_length=1, max_length=MOST_RUNS)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "RunsCancel":
        named = self.thread_id is not None or self.run_ids is not None
        whole = self.thread_id is not None and self.run_ids is not None
        if (self.status is not None) == named or named != whole:
            raise ValueError("expected either status, or thread_id with run_ids")
        return self


def _nodes(nodes: str | list[str] | None) -> Json:
    return [*nodes] if isinstance(nodes, list) else nodes
