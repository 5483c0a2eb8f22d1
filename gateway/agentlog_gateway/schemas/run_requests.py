"""Decides which run requests are valid, field by field. Source: docs/http-api.md, section 7.1."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from agentlog_facts.json_value import Json
from agentlog_facts.version import VERSION
from agentlog_gateway.schemas.requests import AnyJson, AnyObject, Body, CheckpointTarget, NotSupported, Uuid

StreamMode: TypeAlias = Literal[
    "values", "messages", "messages-tuple", "tasks", "checkpoints", "updates", "events", "debug", "custom"
]
SUPPORTED_MODES = frozenset({"values", "updates", "messages-tuple", "custom"})
MAX_DELAY_S = 10 * 366 * 24 * 3600


def _supported_modes(modes: list[StreamMode]) -> list[StreamMode]:
    later = [mode for mode in modes if mode not in SUPPORTED_MODES]
    if later:
        raise ValueError(f"stream mode {', '.join(later)} is not supported yet by agentlog {VERSION}")
    return list(dict.fromkeys(modes)) or ["values"]


def _default_modes() -> list[StreamMode]:
    return ["values"]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _not_strict(value: bool) -> bool:
    if value:
        raise ValueError(f"strict_resume is not supported yet by agentlog {VERSION}")
    return value


def _no_feedback(value: list[str]) -> list[str]:
    if value:
        raise ValueError(f"feedback_keys is not supported yet by agentlog {VERSION}")
    return value


StreamModes: TypeAlias = Annotated[list[StreamMode], BeforeValidator(_as_list), AfterValidator(_supported_modes)]
Strategy: TypeAlias = Literal["reject", "rollback", "interrupt", "enqueue"]
Nodes: TypeAlias = Literal["*"] | list[str]


class Send(Body):
    """A node with an input of its own."""

    node: str
    input: AnyJson


class Command(Body):
    """What to do on a thread that waits. Source: docs/http-api.md, section 13."""

    update: AnyObject | list[AnyJson] | None = None
    resume: AnyJson = None
    goto: str | list[str] | Send | list[Send] | None = None


class RunConfig(Body):
    """LangGraph's config; other keys than these are kept."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    tags: list[str] | None = None
    recursion_limit: Annotated[int, Field(ge=1)] | None = None
    configurable: AnyObject | None = None
    metadata: AnyObject | None = None


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
    after_seconds: Annotated[float, Field(le=MAX_DELAY_S)] = 0
    durability: Literal["sync", "async", "exit"] | None = None
    checkpoint_during: bool | None = None
    strict_resume: Annotated[bool, AfterValidator(_not_strict)] = False
    feedback_keys: Annotated[list[str], AfterValidator(_no_feedback)] = Field(default_factory=list[str])
    webhook: NotSupported = None
    langsmith_tracer: NotSupported = None


class ThreadRun(StatelessRun):
    """POST /threads/{thread_id}/runs, .../runs/stream, .../runs/wait."""

    checkpoint: CheckpointTarget | None = None
    checkpoint_id: Uuid | None = None
    if_not_exists: Literal["create", "reject"] = "reject"
