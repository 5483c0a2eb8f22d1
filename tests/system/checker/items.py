"""Who wrote the items of the store: which attempt of which run, and whether it still had its run when it did."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tests.system.checker.fold import Judged

ENDS = ("RunClaimed", "RunReleased", "RunFinished", "RunDeleted")
"""What ends the claim before it, beside the deletion of the thread."""


@dataclass(frozen=True, slots=True)
class Item:
    """A put or a deletion as the log has it; `late`: the attempt that it names had lost or ended its run before."""

    namespace: tuple[str, ...]
    key: str
    run_id: str
    epoch: int
    late: bool


def items(judged: Sequence[Judged]) -> list[Item]:
    """Return what runs wrote, partition by partition; what came first is told by the broker's append times."""
    ends = _ends(judged)
    found: list[Item] = []
    for one in judged:
        for kind, data in one.facts if one.verdict == "accepted" else ():
            run_id, epoch, labels = data.get("run_id"), data.get("epoch"), data.get("namespace")
            if kind.startswith("StoreItem") and isinstance(run_id, str) and isinstance(epoch, int):
                assert isinstance(labels, list)
                end = ends.get((run_id, epoch))
                late = end is not None and one.record.appended_at > end
                found.append(Item(tuple(map(str, labels)), str(data["key"]), run_id, epoch, late))
    return found


def unknown_writers(judged: Sequence[Judged]) -> list[str]:
    """Return the items that name an attempt which the log does not have."""
    claims = {
        (str(data["run_id"]), one.version)
        for one in judged
        for kind, data in (one.facts if one.verdict == "accepted" else ())
        if kind == "RunClaimed"
    }
    return [
        f"item {item.key} of {item.namespace} names run {item.run_id} under epoch {item.epoch}, which nobody claimed"
        for item in items(judged)
        if (item.run_id, item.epoch) not in claims
    ]


def _ends(judged: Sequence[Judged]) -> dict[tuple[str, int], datetime]:
    """Return (run, epoch) -> when that claim was over, by the clock of the log."""
    held: dict[str, int] = {}
    ends: dict[tuple[str, int], datetime] = {}
    for one in judged:
        for kind, data in one.facts if one.verdict == "accepted" else ():
            run_id = str(data.get("run_id"))
            if kind in ENDS and run_id in held:
                ends[run_id, held.pop(run_id)] = one.record.appended_at
            if kind == "RunClaimed":
                held[run_id] = one.version
    return ends
