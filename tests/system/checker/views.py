"""I5: what the API has to say of every thread and run, folded from the accepted commits a second time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.system.checker.fold import Judged
from tests.system.checker.notes import Shown
from tests.system.checker.records import Json, Value


@dataclass
class Thread:
    """A thread as the log has it; `large`: parts of its values lie in blobs, which are not read here."""

    values: Json = field(default_factory=dict[str, Value])
    next: Value = field(default_factory=list[Value])
    runs: dict[str, str] = field(default_factory=dict[str, str])
    last_end: str = ""
    large: bool = False

    @property
    def status(self) -> str:
        """Return the status that is certain: "busy", "idle", "error", or "" where more than this decides."""
        if any(status in ("pending", "running") for status in self.runs.values()):
            return "busy"
        return {"success": "" if self.next else "idle", "error": "error"}.get(self.last_end, "")


def folded(judged: Iterable[Judged]) -> dict[str, Thread]:
    """Return the threads that exist at the end of the log."""
    threads: dict[str, Thread] = {}
    for one in judged:
        if one.verdict != "accepted":
            continue
        for kind, data in one.facts:
            if kind == "ThreadCreated":
                threads[one.record.key] = Thread()
            elif kind == "ThreadDeleted":
                threads.pop(one.record.key, None)
            elif one.record.key in threads:
                _take(threads[one.record.key], kind, data)
                threads[one.record.key].large |= bool(one.record.value.get("blobs"))
    return threads


def _take(thread: Thread, kind: str, data: Json) -> None:
    run_id = str(data.get("run_id"))
    if kind == "RunCreated":
        thread.runs[run_id] = "pending"
    elif kind == "RunClaimed":
        thread.runs[run_id] = "running"
    elif kind == "RunReleased":
        thread.runs[run_id] = "pending"
    elif kind == "RunFinished":
        thread.runs[run_id] = thread.last_end = str(data["status"])
        if data["status"] == "rollback":
            del thread.runs[run_id]  # a run that was rolled back is shown no more
    elif kind == "RunDeleted":
        thread.runs.pop(run_id, None)
        thread.last_end = ""
    elif kind == "StateUpdated":
        thread.last_end = ""
    view = data.get("view")
    if kind in ("RunFinished", "RunDeleted", "StateUpdated") and isinstance(view, dict):
        _move(thread, view)
        thread.next = data.get("next")


def _move(thread: Thread, change: Json) -> None:
    removed, put, grown = change.get("remove"), change.get("set"), change.get("append")
    for name in removed if isinstance(removed, list) else []:
        thread.values.pop(str(name), None)
    if isinstance(put, dict):
        thread.values.update(put)
    for name, items in grown.items() if isinstance(grown, dict) else ():
        old = thread.values.get(name, [])
        if isinstance(old, list) and isinstance(items, list):
            thread.values[name] = [*old, *items]


def wrong_answers(judged: Sequence[Judged], shown: Iterable[Shown]) -> list[str]:
    """Return the threads of which the API says something else than the log."""
    threads, wrong = folded(judged), list[str]()
    for answer in shown:
        due = threads.get(answer.thread_id)
        if due is None:
            wrong.append(f"thread {answer.thread_id} is shown, the log has none")
            continue
        pairs: list[tuple[str, Value, Value]] = [
            (f"run {one}", answer.runs.get(one, ""), due.runs[one]) for one in due.runs
        ]
        pairs += [(f"run {one}", answer.runs[one], "") for one in answer.runs if one not in due.runs]
        pairs += [] if due.large else [("values", answer.values, due.values), ("next", answer.next, due.next)]
        pairs += [("status", answer.status, due.status)] if due.status else []
        wrong += [
            f"thread {answer.thread_id}: {what} is shown as {told!r}, the log demands {truth!r}"
            for what, told, truth in pairs
            if told != truth
        ]
    return wrong
