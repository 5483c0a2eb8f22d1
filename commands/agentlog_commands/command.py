"""Decision on a command: facts with the demands under which they count, or a reason for a refusal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from agentlog_facts.envelope import Demand, Fact
from agentlog_facts.ids import Stream
from agentlog_facts.json_value import JsonObject

Reason: TypeAlias = Literal[
    "thread_not_found",
    "thread_exists",
    "thread_busy",
    "context_and_configurable",
    "interrupt_answered",
    "assistant_not_found",
    "assistant_exists",
    "assistant_deleting",
    "version_not_found",
    "cron_not_found",
    "run_not_found",
    "run_not_active",
    "run_active",
    "run_stopping",
    "nothing_to_do",
    "metadata_too_large",
    "not_possible",
]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The facts to append to `stream` in one commit; `demands` state the versions that the decision relied on."""

    stream: Stream
    facts: tuple[Fact, ...]
    demands: Mapping[Stream, Demand] = field(default_factory=dict[Stream, Demand])
    epoch: int | None = None
    provenance: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The command is refused; `detail` is a text for people."""

    reason: Reason
    detail: str = ""


Decision: TypeAlias = Accepted | Refused
