"""Snapshot of one checkpoint, encoded in the shape of the API. Source: docs/http-api.md, sections 6.1 and 13."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentlog_facts.graph_ports import ROOT, EncodedState, ThreadView
from agentlog_facts.json_value import Json, JsonObject, dump, dump_object, load

NULL, NO_ITEMS = b"null", b"[]"


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task of the next step: its encoded JSON, and its interrupts in JSON."""

    id: str
    name: str
    json: bytes
    interrupts: Sequence[Json]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State at a checkpoint. `values` is JSON, or JSON by key if the state is an object.

    `metadata`, which is JSON, is None if there is no such checkpoint; `address` then is the address that was asked for.
    """

    values: bytes | Mapping[str, bytes]
    next: tuple[str, ...]
    tasks: Sequence[TaskView]
    metadata: bytes | None
    created_at: Json
    address: JsonObject
    parent: JsonObject | None

    def encoded(self, *, lasting: bool = False) -> EncodedState:
        """Return all fields in the shape of the API; `lasting` as in `EncodedState`."""
        shown = self.metadata is not None or "checkpoint_id" in self.address
        interrupts: list[Json] = [one for task in self.tasks for one in task.interrupts]
        parent_id = None if self.parent is None else self.parent.get("checkpoint_id")
        fields = {
            "values": self.values if isinstance(self.values, bytes) else dump_object(self.values),
            "next": dump([*self.next]) if self.next else NO_ITEMS,
            "tasks": b"[%s]" % b",".join([task.json for task in self.tasks]),
            "metadata": self.metadata or NULL,
            "created_at": dump(self.created_at),
            "checkpoint": dump(self.address) if shown else NULL,
            "parent_checkpoint": NULL if self.parent is None else dump(self.parent),
            "interrupts": dump(interrupts) if interrupts else NO_ITEMS,
            "checkpoint_id": dump(self.address.get("checkpoint_id")),
            "parent_checkpoint_id": dump(parent_id),
        }
        return EncodedState(fields, None if isinstance(self.values, bytes) else self.values, lasting)

    def view(self) -> ThreadView:
        """Return the part that a thread's row shows."""
        if self.metadata is None:
            return ThreadView()
        checkpoint_id = self.address.get("checkpoint_id")
        values = load(self.values if isinstance(self.values, bytes) else dump_object(self.values))
        return ThreadView(
            values=values if isinstance(values, dict) else {ROOT: values},
            next=self.next,
            interrupts={task.id: [*task.interrupts] for task in self.tasks if task.interrupts},
            checkpoint_id=checkpoint_id if isinstance(checkpoint_id, str) else None,
        )
