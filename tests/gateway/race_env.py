"""Test environment of races: two gateways over one log in memory whose rows are always up to date."""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from httpx2 import ASGITransport, AsyncClient
from tests.facts.commits import commit
from tests.fakes.memory_command_contexts import MemoryCommandContexts
from tests.fakes.memory_log import MemoryLog
from tests.fakes.memory_rows import at_once, folded
from tests.fakes.ports import CountedIds
from tests.gateway.web_env import NOWHERE, dependencies

from agentlog_commands.command import Decision
from agentlog_commands.run_request import RunAssistant
from agentlog_commands.submit import Intent, Outcome, Submitter
from agentlog_facts.envelope import Draft, Fact, LogPosition
from agentlog_facts.errors import Contended, OutcomeUnknown
from agentlog_facts.guard import Accepted, Verdict, Void
from agentlog_facts.ids import AssistantId, Key, ThreadId, stream
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.application import build_app
from agentlog_gateway.http.cors import Cors
from agentlog_postgres.connection import open_pool
from agentlog_projections.queries.command_context import ThreadContext

THREAD = ThreadId("019ab000-0000-7000-8000-000000000001")
ON_THREAD = stream("thread", THREAD)

Happening = Callable[[], Awaitable[None]]


@dataclass
class RacedLog(MemoryLog):
    """A log with hooks that run once before the next append of a gateway, or before its verdict.

    `lost_verdicts`: number of next verdicts that do not arrive in time.
    """

    before_append: Happening | None = None
    before_verdict: Happening | None = None
    lost_verdicts: int = 0

    async def append(self, draft: Draft) -> LogPosition:
        happening, self.before_append = self.before_append, None
        if happening is not None:
            await happening()
        return await super().append(draft)

    async def wait(self, place: LogPosition, append_id: str, deadline: float) -> Verdict:
        happening, self.before_verdict = self.before_verdict, None
        if happening is not None:
            await happening()
        if self.lost_verdicts:
            self.lost_verdicts -= 1
            raise OutcomeUnknown("no verdict")
        return await super().wait(place, append_id, deadline)

    async def happen(self, *facts: Fact, epoch: int | None = None) -> int:
        """Append another writer's commit to the thread, which must be accepted; return the thread's new version."""
        draft = replace(commit(*facts, stream=ON_THREAD, epoch=epoch), key=Key(THREAD))
        await MemoryLog.append(self, draft)
        verdict = self.rows[-1][1]
        assert isinstance(verdict, Accepted), verdict
        return verdict.version

    @property
    def verdicts(self) -> Counter[str]:
        """Count the verdicts on the gateways' commits to the thread."""
        mine = [
            verdict for draft, verdict in self.rows if draft.stream == ON_THREAD and draft.cause.request is not None
        ]
        return Counter(one.reason if isinstance(one, Void) else type(one).__name__.lower() for one in mine)


class Rows(MemoryCommandContexts):
    """`CommandContexts` folded from the log in memory. `asking`: runs that have reached an interrupt.

    `after_look` runs once, after a thread was read; `graph_id` is that of every assistant.
    """

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(at_once(lambda: folded(log)))
        self.graph_id = "steps"
        self.asking: set[str] = set()
        self.after_look: Happening | None = None

    async def thread(self, thread_id: ThreadId, partition: int) -> ThreadContext:
        found = await super().thread(thread_id, partition)
        runs = {run_id: replace(run, asks=run_id in self.asking) for run_id, run in found.state.runs.items()}
        happening, self.after_look = self.after_look, None
        if happening is not None:
            await happening()
        return replace(found, state=replace(found.state, runs=runs))

    async def run_target(
        self, thread_id: ThreadId, partition: int, assistant_id: AssistantId
    ) -> tuple[ThreadContext, RunAssistant | None]:
        return await self.thread(thread_id, partition), RunAssistant(assistant_id, self.graph_id, 1, {}, {}, {})


@dataclass(frozen=True)
class Gateways:
    """Two gateways, their log and their rows."""

    log: RacedLog
    rows: Rows
    ids: CountedIds
    one: AsyncClient
    other: AsyncClient


class Beaten(Submitter):
    """Loses every race."""

    async def submit(self, intent: Intent, decide: Callable[[], Awaitable[Decision]], deadline: float) -> Outcome:
        raise Contended(f"{intent.key}: gave up")


@asynccontextmanager
async def two_gateways(submits: type[Submitter] = Submitter) -> AsyncGenerator[Gateways]:
    """Yield two gateways, each with its own submitter."""
    log, ids, pool = RacedLog(), CountedIds(), await open_pool(NOWHERE, 2)
    rows = Rows(log)
    plain = [replace(dependencies(log, pool), contexts=rows, ids=ids) for _ in range(2)]
    wired = [replace(one, submitter=submits(log, log, log, one.clock, ids)) for one in plain]
    async with _client(wired[0]) as one, _client(wired[1]) as other:
        yield Gateways(log, rows, ids, one, other)
    await pool.close()


def _client(wired: Dependencies) -> AsyncClient:
    app = build_app(lambda: wired, Cors(allow_origins=["*"]))
    return AsyncClient(transport=ASGITransport(app, raise_app_exceptions=False), base_url="http://test")
