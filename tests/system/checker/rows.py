"""I5 and I12: what the server keeps beside the log, its verdicts and its queue, has to be what the log says."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
from redis.asyncio import Redis
from tests.system.checker.fold import Judged
from tests.system.checker.records import Json

if TYPE_CHECKING:
    from redis.asyncio.client import Reply

Ledger: TypeAlias = dict[tuple[int, int], tuple[str, int | None]]
"""Place -> verdict and version, as the server's own rows hold them."""
VERDICTS = 'SELECT partition, "offset", version, detail FROM ledger.log_index'


async def read_ledger(uri: str) -> Ledger:
    """Return the verdicts of the rows."""
    connection = await asyncpg.connect(uri)
    try:
        rows = await connection.fetch(VERDICTS)
    finally:
        await connection.close()
    found: Ledger = {}
    for row in rows:
        detail: dict[str, str] = json.loads(row["detail"])
        found[row["partition"], row["offset"]] = (detail.get("reason", detail["verdict"]), row["version"])
    return found


async def read_queue(uri: str, prefix: str = "{agentlog}:") -> dict[str, list[str]]:
    """Return graph -> run ids in its lists, the next one first; those that are executed alone come last."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    async with Redis.from_url(uri) as client:
        for name in sorted(_texts(await client.execute_command("KEYS", f"{prefix}queue:*")), key=_is_of_suspects):
            found[name.rpartition(":")[2]] += _texts(await client.execute_command("LRANGE", name, 0, -1))
    return found


def _is_of_suspects(name: str) -> bool:
    return ":queue:suspects:" in name


def _texts(reply: "Reply") -> list[str]:
    return [item.decode() for item in reply if isinstance(item, bytes)] if isinstance(reply, list) else []


def other_verdicts(judged: Iterable[Judged], ledger: Mapping[tuple[int, int], tuple[str, int | None]]) -> list[str]:
    """Return the commits of which the rows hold another verdict than this checker."""
    due = {
        (one.record.partition, one.record.offset): (one.verdict, one.version if one.verdict == "accepted" else None)
        for one in judged
    }
    return [
        f"{partition}:{offset}: the rows say {ledger.get((partition, offset))}, the log {due.get((partition, offset))}"
        for partition, offset in sorted(due.keys() | ledger.keys())
        if due.get((partition, offset)) != ledger.get((partition, offset))
    ]


@dataclass
class _Waiting:
    graph: str
    due_at: str
    attempts: int = 0
    claimed: bool = False
    stopping: bool = False


@dataclass
class _Line:
    runs: dict[str, _Waiting] = field(default_factory=dict[str, _Waiting])

    def first(self, now: datetime) -> str:
        """Return the run of this thread that may be claimed, or ""."""
        if any(run.claimed or (run.stopping and run.attempts) for run in self.runs.values()):
            return ""
        due = [
            (run.attempts == 0, number, run_id)
            for number, (run_id, run) in enumerate(self.runs.items())
            if not run.stopping and (not run.due_at or datetime.fromisoformat(run.due_at) <= now)
        ]
        return min(due)[2] if due else ""


def ready_runs(judged: Iterable[Judged], now: datetime | None = None) -> dict[str, str]:
    """Return run -> graph of the runs that a worker could claim now."""
    lines: dict[str, _Line] = {}
    for one in judged:
        if one.verdict == "accepted":
            for kind, data in one.facts:
                _queue(lines.setdefault(one.record.key, _Line()), kind, data)
    found = {line.first(now or datetime.now(UTC)): line for line in lines.values()}
    return {run_id: line.runs[run_id].graph for run_id, line in found.items() if run_id}


def _queue(line: _Line, kind: str, data: Json) -> None:
    run_id = str(data.get("run_id"))
    if kind == "RunCreated":
        assistant, due_at = data["assistant"], data.get("due_at")
        graph = str(assistant["graph_id"]) if isinstance(assistant, dict) else ""
        line.runs[run_id] = _Waiting(graph, due_at if isinstance(due_at, str) else "")
    elif kind == "ThreadDeleted":
        line.runs.clear()
    elif kind in ("RunFinished", "RunDeleted"):
        line.runs.pop(run_id, None)
    elif run_id in line.runs and kind == "RunClaimed":
        line.runs[run_id].claimed = True
        line.runs[run_id].attempts += 1
    elif run_id in line.runs and kind == "RunReleased":
        line.runs[run_id].claimed = False
    elif run_id in line.runs and kind == "RunCancelRequested":
        line.runs[run_id].stopping = True


def wrong_queue(
    judged: Sequence[Judged], queued: Mapping[str, Sequence[str]], now: datetime | None = None
) -> list[str]:
    """Return what lies in the queue and should not, and what should and does not."""
    ready = ready_runs(judged, now)
    lying = {run_id: graph for graph, run_ids in queued.items() for run_id in run_ids}
    wrong = [f"run {run_id} is ready and not in the queue" for run_id in ready if run_id not in lying]
    wrong += [f"run {run_id} is in the queue and not ready" for run_id in lying if run_id not in ready]
    wrong += [
        f"run {run_id} of graph {ready[run_id]} lies in the list of {graph}"
        for run_id, graph in lying.items()
        if ready.get(run_id, graph) != graph
    ]
    return wrong
